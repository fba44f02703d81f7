from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.labeling.planted import THEMES, planted_documents, planted_sae
from tests.personas.judges import server
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import Collection, collect_evidence
from workbench.labeling.scores.examples import Example, detection_examples, fuzzing_examples
from workbench.labeling.scores.language import EndpointScorer, LocalScorer
from workbench.labeling.scores.prompts import one_prompt, read_numbers, shown
from workbench.labeling.scores.scoring import score
from workbench.labeling.words import words_of
from workbench.models.continuations import NEGLIGIBLE
from workbench.personas.judges.local import before_answer

KEY = "sk-canary-label-scores"
LABEL = "insults such as idiot and fool"


@pytest.fixture(scope="module")
def collection(tiny_model: Any) -> Collection:
    sae = planted_sae()
    found = collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae, n=100), context=48)
    return replace(found, neighbours={0: (1, 2)})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_API_KEY", KEY)


def texts_of(prompt: str) -> list[str]:
    return re.findall(r"<text \d+>\n(.*?)\n</text \d+>", prompt, flags=re.DOTALL)


def insulting(text: str) -> bool:
    return bool(set(words_of(text)) & set(THEMES[0]))


def marked(text: str) -> bool:
    return any(map(insulting, re.findall(r"«(.*?)»", text)))


def answering(rule: Any, dress: Any = server.completion) -> Any:
    return lambda prompt: dress(f"Here: {json.dumps([95 if rule(text) else 5 for text in texts_of(prompt)])}")


@pytest.mark.parametrize(("dialect", "dress"), [("openai", server.completion), ("anthropic", server.message)])
def test_detection_by_an_endpoint_that_reads_correctly(
    collection: Collection, tmp_path: Path, dialect: str, dress: Any
) -> None:
    with server.running(answering(insulting, dress)) as endpoint:
        base = endpoint.url if dialect == "openai" else endpoint.url.removesuffix("/v1")
        scorer = EndpointScorer(dialect, model="m", base_url=base, cache_folder=tmp_path)
        found = score(LABEL, 0, collection, scorer)
        n_asked = len(endpoint.bodies)
        again = score(LABEL, 0, collection, scorer)
    assert found.pooled is not None and found.pooled.auroc > 0.9 and found.pooled.balanced_accuracy > 0.9
    assert found.kind == f"{dialect}_detection_auroc" and found.n["failed"] == 0
    assert again == found and len(endpoint.bodies) == n_asked, "answers are kept"
    assert n_asked == scorer.n_requests(sum(detection_examples(0, collection).n.values()))
    assert all(LABEL in body["messages"][-1]["content"] for body in endpoint.bodies)
    assert KEY not in json.dumps([*endpoint.bodies, dict(scorer.description())])
    shown_texts = [text for body in endpoint.bodies for text in texts_of(body["messages"][-1]["content"])]
    assert not any("«" in text for text in shown_texts), "detection shows no marks"


def test_fuzzing_shows_marks_and_tells_wrong_ones(collection: Collection, tmp_path: Path) -> None:
    with server.running(answering(marked)) as endpoint:
        scorer = EndpointScorer("openai", model="m", base_url=endpoint.url, task="fuzzing", cache_folder=tmp_path)
        found = score(LABEL, 0, collection, scorer)
    misplaced = found.by["misplaced"]
    assert misplaced is not None and misplaced.auroc > 0.7 and found.pooled is not None
    assert all("«" in text for body in endpoint.bodies for text in texts_of(body["messages"][-1]["content"]))


def test_an_answer_of_the_wrong_length_is_asked_for_once_more_and_then_given_up(
    collection: Collection, tmp_path: Path
) -> None:
    examples = detection_examples(0, collection).positives[:6]
    with server.running(lambda prompt: server.completion("[50, 50]")) as endpoint:
        scorer = EndpointScorer("openai", model="m", base_url=endpoint.url, per_request=3, cache_folder=tmp_path)
        assert scorer.scores(LABEL, examples) == [None] * 6
        assert len(endpoint.bodies) == 4


def test_failed_requests_are_counted_and_asked_again_later(collection: Collection, tmp_path: Path) -> None:
    fails = True
    with server.running(answering(insulting), lambda p, a: "500" if fails and sum(map(ord, p)) % 3 else None) as endpoint:
        options = {"n_attempts": 2, "first_wait_seconds": 0.01}
        scorer = EndpointScorer("openai", model="m", base_url=endpoint.url, cache_folder=tmp_path, **options)
        first = score(LABEL, 0, collection, scorer)
        fails = False
        second = score(LABEL, 0, collection, scorer)
    assert first.n["failed"] > 0
    assert first.n["failed"] == sum(detection_examples(0, collection).n.values()) - sum(
        count for name, count in first.n.items() if name != "failed"
    )
    assert second.n["failed"] == 0 and max(endpoint.answered.values()) == 1


def test_numbers_are_read_only_from_a_whole_list() -> None:
    assert read_numbers("Sure: [0, 100, 50]", 3) == [0.0, 1.0, 0.5]
    for bad in ("0 100 50", "[0, 100]", "[0, 100, 101]", "[0, 100, ]", "[0, , 1]", ""):
        assert read_numbers(bad, 3) is None


def test_marks_of_neighbouring_tokens_are_joined(collection: Collection) -> None:
    context = detection_examples(0, collection).positives[0].context
    some = replace(context, tokens=(" a", " b", " c", " d"), values=(0.0,) * 4, peak=1)
    assert shown(Example(some, (1, 2)), "fuzzing") == " a «b c» d"
    assert shown(Example(some, (1, 2)), "detection") == " a b c d"


def test_the_local_scorer_reads_the_models_own_probabilities(tiny_model: Any, collection: Collection) -> None:
    scorer = LocalScorer(tiny_model)
    examples = fuzzing_examples(0, collection).positives[:3]
    found = scorer.scores(LABEL, examples)
    for example, value in zip(examples, found, strict=True):
        ids = before_answer(tiny_model, one_prompt(LABEL, example, "detection"))
        assert value == pytest.approx(by_hand(tiny_model, ids), rel=1e-4)
    assert len(set(found)) == 3


def by_hand(model: Any, ids: tuple[int, ...]) -> float:
    """p(yes) / (p(yes) + p(no)) by the chain rule, one full forward pass per string."""

    def chance(text: str) -> float:
        answer = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        logits = model.forward(torch.tensor([[*ids, *answer]]))[0, :, : len(model.tokenizer)]
        steps = logits.float().softmax(-1)[len(ids) - 1 : -1].gather(1, torch.tensor(answer)[:, None]).flatten().tolist()
        masses = [math.prod(steps[:depth]) for depth in range(1, len(steps) + 1)]
        return masses[-1] if all(mass >= NEGLIGIBLE for mass in masses[:-1]) else 0.0

    yes, no = chance("Yes") + chance("yes"), chance("No") + chance("no")
    return yes / (yes + no)


def test_what_is_missing_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkbenchError, match="scoring task"):
        EndpointScorer("openai", model="m", task="guessing")
    with pytest.raises(WorkbenchError, match="scoring model"):
        LocalScorer()
    with pytest.raises(WorkbenchError, match="model"):
        EndpointScorer("openai")
