"""What SAE features are, in words: evidence, explanations, scores, categories, and the files they are kept in.

`store` (and the value types it re-exports) is light; `examples`, `lens`, `explain`, `taxonomy`, `score` and `label` import
torch when they are used.
"""
