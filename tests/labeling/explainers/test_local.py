"""The local explainer on a tiny random model: it says nonsense, which is what nonsense is tested with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.labeling.features import known_evidence, known_label, right_answer
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.labeling.evidence import FeatureEvidence
from workbench.labeling.explainers.local import LocalExplainer
from workbench.labeling.explainers.prompt import messages_for


@pytest.fixture(scope="module")
def model() -> Any:
    made = tiny_model()
    made.hf.config.max_position_embeddings = 4096  # a byte-level tokenizer makes four times as many tokens of a prompt
    return made


def local(model: Any, folder: Path) -> LocalExplainer:
    return LocalExplainer(model=model, max_tokens=6, cache_folder=folder, batch_size=3)


def n_answers(folder: Path) -> int:
    return len(list(folder.rglob("*.json")))


def test_a_model_that_babbles_gives_unclear_labels_and_is_asked_once(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.models import generation

    one = local(model, tmp_path)
    evidence = [known_evidence(1), FeatureEvidence(2, 0.0, 0.0), known_evidence(3)]
    said = one.explain_all(evidence)
    assert [item.label for item in said] == ["unclear: no usable answer", "unclear: no contexts", "unclear: no usable answer"]
    assert n_answers(tmp_path) == 4, "two features, each asked and asked again"
    assert one.author == {"kind": "model", "name": model.name, "method": "contrastive prompt 1"}

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("everything is answered")

    monkeypatch.setattr(generation, "generate", never)
    assert local(model, tmp_path).explain_all(evidence) == said


def test_what_was_answered_before_an_interruption_is_taken_from_disk(model: Any, tmp_path: Path) -> None:
    one = local(model, tmp_path)
    one.cache.write(one._question(messages_for(known_evidence(1))), {"text": right_answer(1)})
    said = one.explain_all([known_evidence(1), known_evidence(3)])
    assert said[0].label == known_label(1) and said[0].confidence == 0.9 and said[1].unclear
    assert n_answers(tmp_path) == 3


def test_a_prompt_that_does_not_fit_is_shortened_and_at_last_given_up(tmp_path: Path) -> None:
    small = tiny_model()
    one = local(small, tmp_path)
    whole = len(one._prompt(messages_for(known_evidence(1, n_contexts=10))))
    small.hf.config.max_position_embeddings = whole + 100
    messages = one._fitting(known_evidence(1, n_contexts=10))
    assert isinstance(messages, list) and 1 <= messages[1]["content"].count("«") < 10
    small.hf.config.max_position_embeddings = 300
    assert one.explain(known_evidence(1)).label == "unclear: the prompt does not fit" and n_answers(tmp_path) == 0


def test_a_local_explainer_without_a_model_is_refused() -> None:
    with pytest.raises(WorkbenchError, match=r"No model is named.*--explainer-model"):
        LocalExplainer()
