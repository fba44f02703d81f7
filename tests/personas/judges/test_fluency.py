"""The character model behind coherence: exact smoothing, and a scale that means what its card says."""

from __future__ import annotations

import random

import pytest
import torch

from workbench.personas.judges.fluency import ALPHABET, STEP, encode, fit, fluency, model, perplexity
from workbench.personas.judges.rules import coherence

ENGLISH = "The bus was late this morning, so I walked along the river and had a cup of coffee on the way to work."


def test_probabilities_sum_to_one_for_every_context():
    p = torch.exp(-fit([ENGLISH, "another text, with other words"]).double() * STEP)
    assert p.shape == (len(ALPHABET) ** 3, len(ALPHABET))
    assert float((p.sum(dim=1) - 1).abs().max()) < 0.06  # each is rounded to steps of .05 nats


def test_a_seen_context_follows_witten_and_bell():
    table = fit(["ab"])  # symbols: a after blanks, b after a
    size, (a, b) = len(ALPHABET), encode("ab")[-2:].tolist()
    first = (1 + 2 * (1 / size)) / (2 + 2)  # order 1: two symbols counted once, two kinds
    expected = first
    for _ in range(3):  # orders 2 to 4: one kind, seen once, in the context of a
        expected = (1 + expected) / 2
    context = (0 * size + 0) * size + a
    assert float(torch.exp(-table[context, b].double() * STEP)) == pytest.approx(expected, rel=0.03)


def test_perplexity_ignores_case_and_white_space_and_knows_nothing_of_an_empty_text():
    assert perplexity(ENGLISH) == perplexity("  " + ENGLISH.upper().replace(" ", "\n "))
    assert perplexity("") == float("inf") and fluency("") == 0.0


def test_english_reads_better_than_its_own_letters_shuffled():
    dice = random.Random(1)
    shuffled = " ".join("".join(dice.sample(word, len(word))) for word in ENGLISH.split())
    card = model()[1]
    assert perplexity(ENGLISH) < card["perplexity_of_english_q99"] < perplexity(shuffled)
    assert fluency(ENGLISH) == 1.0 and fluency(shuffled) < 0.6
    assert coherence(ENGLISH) > 90 and coherence(shuffled) < 60
    assert coherence("Wir haben heute keine Zeit, aber morgen gehen wir an den See, versprochen.") < coherence(ENGLISH)
