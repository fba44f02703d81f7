"""Make the character model behind offline coherence again, from OpenWebText documents (asset `evals`, CC0). One minute.

    python scripts/train_fluency.py

Two documents of three are counted; the third ones set the two perplexities between which fluency falls from 1 to 0: the
99th percentile over held-out windows of 40 words, and the median over the same windows with the letters of each word
shuffled.
"""

from __future__ import annotations

import json
import random

import torch

from workbench.base.store import sha256_file
from workbench.models.assets import asset_path
from workbench.personas.judges import fluency

WINDOW_WORDS = 40


def main() -> None:
    """Count, measure, save, and print the two perplexities."""
    path = next(asset_path("evals").rglob("owt_5.jsonl"))
    documents = [json.loads(line)["0"] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    table = fluency.fit([text for i, text in enumerate(documents) if i % 3])
    held_out = [window for text in documents[::3] for window in windows(text)]
    dice = random.Random(0)
    english = torch.tensor([fluency.perplexity(text, table) for text in held_out])
    shuffled = torch.tensor([fluency.perplexity(shuffle(text, dice), table) for text in held_out])
    card = {
        "author": {"kind": "program", "name": "scripts/train_fluency.py"},
        "source": "OpenWebText documents of the package evals (CC0)", "sha256": sha256_file(path),
        "n_documents": len(documents), "n_windows": len(held_out), "order": fluency.ORDER,
        "perplexity_of_english_median": float(english.median()),
        "perplexity_of_english_q99": float(english.quantile(0.99)),
        "perplexity_of_shuffled_median": float(shuffled.median()),
    }  # fmt: skip
    print(fluency.save(table, card), json.dumps(card, indent=2), sep="\n")


def windows(text: str) -> list[str]:
    """The first windows of a document, at most five."""
    words = text.split()
    return [" ".join(words[i : i + WINDOW_WORDS]) for i in range(0, len(words) - WINDOW_WORDS, WINDOW_WORDS)][:5]


def shuffle(text: str, dice: random.Random) -> str:
    """The words with their letters in random order."""
    return " ".join("".join(dice.sample(word, len(word))) for word in text.split())


if __name__ == "__main__":
    main()
