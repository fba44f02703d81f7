"""A SentencePiece tokenizer from vocabulary and scores: the joins are those of SentencePiece's own rule."""

from __future__ import annotations

from itertools import pairwise

import pytest

from workbench.models.sentencepiece import merges, sentencepiece_tokenizer

WORDS = ["\u2581the", "\u2581th", "\u2581t", "he", "cat", "at", "ca", "\u2581cat"]
CHARACTERS = ["\u2581", "t", "h", "e", "c", "a", "s"]
SCORES = {"he": 0, "\u2581t": -1, "at": -2, "\u2581the": -3, "cat": -4, "\u2581cat": -5, "ca": -6, "\u2581th": -7}
BYTES = [f"<0x{i:02X}>" for i in range(256)]
TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "\n\n", *BYTES, *WORDS, *CHARACTERS]
KINDS = [3, 3, 3, 3, 4] + [6] * 256 + [1] * (len(WORDS) + len(CHARACTERS))
RANKS = [-1000.0] * 5 + [0.0] * 256 + [float(SCORES[w]) for w in WORDS] + [-100.0 - i for i in range(len(CHARACTERS))]


@pytest.fixture(scope="module")
def tokenizer():
    specials = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return sentencepiece_tokenizer(TOKENS, RANKS, KINDS, specials=specials, add_bos=True, add_space_prefix=False)


def by_hand(text: str) -> list[str]:
    """SentencePiece's rule: of all neighbouring pieces join those whose union has the best score, until none is known."""
    pieces, scores = list(text.replace(" ", "\u2581")), dict(zip(TOKENS, RANKS, strict=True))
    while True:
        unions = [(scores[a + b], -i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in scores]
        if not unions:
            return pieces
        place = -max(unions)[1]
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]


@pytest.mark.parametrize("text", ["the cat", " the cat sat", "cat at the tea", "hehe that chat"])
def test_words_are_joined_as_sentencepiece_joins_them(tokenizer, text):
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])[1:] == by_hand(text)


@pytest.mark.parametrize("text", ["the cat\n\n  sat", "caf\u00e9 \U0001f600", " two  spaces"])
def test_any_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 2 and tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_users_own_token_stays_whole_and_a_letter_that_is_not_known_is_bytes(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("cat\n\n\u00e9")["input_ids"])
    assert tokens == ["<bos>", "cat", "\n\n", "<0xC3>", "<0xA9>"]


def test_merges_are_in_the_order_of_the_scores():
    found = merges(TOKENS, RANKS, KINDS)
    assert found[0] == ("h", "e") and all(left + right in SCORES for left, right in found)
    ranks = [SCORES[left + right] for left, right in found]
    assert ranks == sorted(ranks, reverse=True)
