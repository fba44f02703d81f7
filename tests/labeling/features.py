"""Features whose labels are known, as evidence; and an endpoint's answers about them, for tests of whoever explains."""

from __future__ import annotations

import json
import re

from workbench.labeling.evidence import Context, FeatureEvidence

WORDS = ("river", "anger", "Monday", "guitar", "cheese", "refusal", "bracket", "winter", "soldier", "physics")


def known_evidence(number: int, *, n_contexts: int = 5, text: str = "") -> FeatureEvidence:
    """Feature `number`, which fires on its own word: "river7" for number 70; every context holds `text` as well."""
    word = f"{WORDS[number % len(WORDS)]}{number}"
    tokens = (" the", f" {word}", " was", f" seen{text}")
    contexts = tuple(
        Context((*tokens, f" {i}"), (0.0, 2.0 + i, 0.5, 0.0, 0.0), 1, "owt", f"d{number}-{i}", 1) for i in range(n_contexts)
    )
    return FeatureEvidence(number, 0.01, 2.0 + n_contexts, contexts[::-1], promoted=(" bank", " of"), n_tokens=1000)


def known_label(number: int) -> str:
    """The right label of feature `number`."""
    return f"the word {WORDS[number % len(WORDS)]}{number}"


def number_asked(prompt: str) -> int:
    """The feature that a prompt is about, by the word that is marked most often in it."""
    found = re.search(r"«\s*[A-Za-z]+(\d+)»", prompt)
    assert found, prompt
    return int(found.group(1))


def right_answer(number: int) -> str:
    """A reply of the form asked for."""
    reply = {"label": known_label(number), "explanation": "It fires on that word.", "confidence": 0.9, "unclear": False}
    return json.dumps(reply)


def request_about(body: dict) -> str:
    """What tells one request from another: the feature, and whether it is the request to repair an answer."""
    messages = [message for message in body["messages"] if message["role"] != "system"]
    return f"{messages[0]['content']}\nrepair" if len(messages) > 1 else messages[0]["content"]
