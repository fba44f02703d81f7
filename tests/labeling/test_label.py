from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.labeling.planted import THEMES, planted_documents, planted_sae, use_toy_embedders
from workbench.base.errors import WorkbenchError
from workbench.labeling.files.store import FeatureLabel, load_labels, save_label, save_labels
from workbench.labeling.label import features_to_label, label
from workbench.personas.traits import load_trait


@dataclass(frozen=True)
class Parts:
    """What `label` reads of a Decomposition."""

    sae: dict[str, Any]
    trait: str = "evil"
    order: tuple[int, ...] = (2, 0, 1, 3, 9)
    candidates: tuple[int, ...] = (2, 3)
    causal: tuple[Any, ...] = (SimpleNamespace(feature=7),)

    def top(self, n: int) -> tuple[int, ...]:
        return self.order[:n]


@pytest.fixture
def offline_embedders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy embedders with known answers, so that nothing is fetched."""
    words = [category.words for category in load_trait("evil").taxonomy if category.id != "unclear"]
    use_toy_embedders(monkeypatch, words)


def parts_for(sae: Any) -> Any:
    return Parts({"id": sae.id, "weights_hash": sae.weights_hash})


def test_candidates_and_causal_features_are_labelled_beside_the_top() -> None:
    assert features_to_label(parts_for(planted_sae()), 2) == [2, 0, 3, 7]


def test_every_feature_gets_a_label_with_evidence_score_and_category(
    tiny_model: Any, offline_embedders: None, tmp_path: Path
) -> None:
    sae = planted_sae()
    made = label(
        parts_for(sae), sae, tiny_model, texts=planted_documents(tiny_model, sae, n=120), shelf=tmp_path
    )
    assert sorted(made.labels) == [0, 1, 2, 3, 7, 9] and made.trait == "evil" and made.matches(sae)
    for theme in THEMES:
        item = made[theme]
        assert item.author["kind"] == "offline" and item.status == "proposed" and item.evidence is not None
        assert item.score is not None and item.score["value"] > 0.9
    assert made[0].category == "insulting_language" and "MiniLM" in made[0].notes
    assert (
        made[9].category == "unclear" and made[9].score is None and "nothing that was read" in made[9].notes
    )
    assert "token statistics written by a program" in made.warnings[-1]
    save_labels(made, tmp_path)
    assert [item.label for item in load_labels(sae.id, tmp_path)] == [item.label for item in made]


def shipped(feature: int) -> FeatureLabel:
    return FeatureLabel(
        feature,
        "insults",
        categories={"evil": "contempt"},
        author={"kind": "model", "name": "a reader"},
        origin="shipped",
    )


def test_a_shipped_label_of_the_same_weights_is_kept_as_given(
    tiny_model: Any, offline_embedders: None, tmp_path: Path
) -> None:
    sae = planted_sae()
    save_label(shipped(0), sae.id, sae.weights_hash, tmp_path)
    save_label(shipped(1), sae.id, "cd" * 32, tmp_path)
    documents = planted_documents(tiny_model, sae)
    made = label(parts_for(sae), sae, tiny_model, texts=documents, shelf=tmp_path, n_features=3, score=False)
    assert made[0] == shipped(0)
    assert made[1].author["kind"] == "offline" and any(
        "written for other weights" in text for text in made.warnings
    )


def test_nothing_is_read_when_every_feature_has_a_shipped_label(tiny_model: Any, tmp_path: Path) -> None:
    sae = planted_sae()
    for feature in (2, 0, 3, 7):
        save_label(shipped(feature), sae.id, sae.weights_hash, tmp_path)

    def unread() -> Any:
        raise AssertionError("no text was needed")
        yield ""

    made = label(parts_for(sae), sae, tiny_model, texts=unread(), shelf=tmp_path, n_features=2)
    assert len(made) == 4 and made.warnings == ()


def test_a_decomposition_of_another_sae_and_an_unknown_trait_are_refused(
    tiny_model: Any, tmp_path: Path
) -> None:
    sae = planted_sae()
    with pytest.raises(WorkbenchError, match="The decomposition was made on"):
        label(parts_for(planted_sae(seed=9)), sae, tiny_model, texts=["x"], shelf=tmp_path)
    with pytest.raises(WorkbenchError, match="There is no trait 'evli'"):
        label(parts_for(sae), sae, tiny_model, trait="evli", texts=["x"], shelf=tmp_path)


def test_another_trait_s_category_is_added_to_a_shipped_label(
    tiny_model: Any, offline_embedders: None, tmp_path: Path
) -> None:
    sae = planted_sae()
    for feature in (2, 0, 3, 7):
        save_label(shipped(feature), sae.id, sae.weights_hash, tmp_path)
    other = replace(load_trait("evil"), name="mean")
    made = label(parts_for(sae), sae, tiny_model, trait=other, texts=[], shelf=tmp_path, n_features=2)
    assert (
        made.trait == "mean"
        and made[0].categories["evil"] == "contempt"
        and next(iter(made[0].categories)) == "mean"
    )
