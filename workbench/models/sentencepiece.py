"""A SentencePiece BPE tokenizer rebuilt from the vocabulary and scores that a GGUF file carries.

transformers converts the tokenizers of Gemma 3 GGUF files wrongly: it takes the scores for those of a unigram model
(perplexity 654 on ordinary text instead of 9.7). SentencePiece's BPE joins, of all neighbouring pieces, the pair whose union
has the highest score, which is the same as BPE with every split of every piece as a merge, best union first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.errors import WorkbenchError

_NORMAL, _CONTROL, _USER, _BYTE = 1, 3, 4, 6
_SPACE = "\u2581"


def sentencepiece_tokenizer(
    tokens: Sequence[str],
    scores: Sequence[float],
    kinds: Sequence[int],
    *,
    specials: dict[str, str],
    add_bos: bool,
    add_space_prefix: bool,
) -> Any:
    """A transformers tokenizer with `tokens[i]` as id i.

    kinds: llama.cpp's token types (1 normal, 3 control, 4 user-defined, 6 byte). specials: {"bos_token": "<bos>", ...}.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = BPE(vocabulary, merges(tokens, scores, kinds), unk_token=specials.get("unk_token"), byte_fallback=True,
                fuse_unk=True)  # fmt: skip
    made = Tokenizer(model)
    steps = [normalizers.Prepend(_SPACE)] if add_space_prefix else []
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])  # pyright: ignore
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")  # pyright: ignore
    made.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])  # pyright: ignore
    if add_bos and (bos := specials.get("bos_token")):
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, vocabulary[bos])]
        )  # pyright: ignore
    for kind in (_CONTROL, _USER):
        listed = [t for t, k in zip(tokens, kinds, strict=True) if k == kind]
        made.add_tokens([AddedToken(t.replace(_SPACE, " "), normalized=False, special=kind == _CONTROL) for t in listed])
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **specials)


def merges(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[tuple[str, str]]:
    """Every split of every normal piece into two known pieces, in the order in which SentencePiece would join them."""
    known = {token for token, kind in zip(tokens, kinds, strict=True) if kind == _NORMAL}
    places = {token: index for index, token in enumerate(tokens)}
    ranked = []
    for token, score in zip(tokens, scores, strict=True):
        if token not in known:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                ranked.append((-score, places[left], places[right], left, right))
    ranked.sort()
    return [(left, right) for *_, left, right in ranked]


def gguf_tokenizer(file: Path) -> Any:
    """The tokenizer of a GGUF file whose tokenizer model is SentencePiece ("llama")."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields

    def content(name: str, default: Any = None) -> Any:
        field = fields.get(f"tokenizer.ggml.{name}")
        return default if field is None else field.contents()

    if content("model") != "llama" or content("scores") is None:
        raise WorkbenchError(
            f"{file.name} holds a tokenizer of the kind {content('model')!r}",
            "a SentencePiece tokenizer with scores",
            "load the model from its original folder instead of the GGUF file",
        )
    tokens = content("tokens")
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    found = {ours: content(f"{theirs}_token_id") for theirs, ours in names.items()}
    specials = {name: tokens[int(index)] for name, index in found.items() if index is not None}
    return sentencepiece_tokenizer(tokens, content("scores"), content("token_type"), specials=specials,
                                   add_bos=bool(content("add_bos_token", True)),
                                   add_space_prefix=bool(content("add_space_prefix", True)))  # fmt: skip
