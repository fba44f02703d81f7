"""`workbench labels score`: every label of a folder, whoever wrote it, on the held-out contexts of an index."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.planted import THEMES, planted_documents, planted_sae, theme_vectors, use_toy_embedders
from tests.personas.judges import server
from tests.tiny import tiny_model
from workbench.cli.labels.score import _with_score
from workbench.labeling import embedders
from workbench.labeling.contexts.building import build_index
from workbench.labeling.files.store import load_labels, save_label
from workbench.labeling.labels import FeatureLabel
from workbench.models.loading import load_model
from workbench.saes.formats import saelens
from workbench.saes.registry import load_sae

SAE = "tiny/blocks.1.hook_resid_post"
READER = {"kind": "model", "name": "reader"}
OTHER = {"kind": "model", "name": "other"}


@dataclass(frozen=True)
class Made:
    """The folders of one small job, and the id of its SAE."""

    sae: Path
    labels: Path
    index: Path
    sae_id: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A tiny model, an SAE in which four features have a theme, an index of planted documents."""
    folder = tmp_path_factory.mktemp("score")
    tiny = tiny_model()
    tiny.hf.save_pretrained(folder / "model")
    tiny.tokenizer.save_pretrained(folder / "model")
    model = load_model(str(folder / "model"))
    card = {"model_weights_hash": model.weights_hash}
    saelens.write(replace(planted_sae(), model_name=str(folder / "model"), card=card), folder / "sae")
    sae = load_sae(folder / "sae")
    build_index(sae, model, planted_documents(model, sae, n=100), folder / "index", n_tokens=100_000, context=48)
    return Made(folder / "sae", folder / "labels", folder / "index", sae.id)


@pytest.fixture
def made(world: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Fresh label files: the right label of every feature, and for the first one a wrong one by somebody else."""
    monkeypatch.setattr(embedders, "load_glove", theme_vectors)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    sae = load_sae(world.sae)
    labels = tmp_path / "labels"
    for theme, words in THEMES.items():
        save_label(FeatureLabel(theme, ", ".join(words), author=READER), SAE, sae.weights_hash, labels)
    save_label(FeatureLabel(0, "bread and soup", author=OTHER), SAE, sae.weights_hash, labels)
    return replace(world, labels=labels)


def test_every_label_is_scored_by_kind_of_negative(workbench: Any, made: Made) -> None:
    answer = workbench("labels", "score", made.labels, "--index", made.index, "--sae", made.sae, "--json", "-q")
    assert answer.code == 0, answer.err
    value = json.loads(answer.out)
    assert value["n_labels"] == 5 and value["n_scored"] == 5 and value["written"] == 0
    scores = {(row["feature"], row["author"]["name"]): row["score"] for row in value["labels"]}
    assert all(scores[theme, "reader"]["value"] > 0.8 for theme in THEMES)
    assert scores[0, "reader"]["interval"][0] > scores[0, "other"]["interval"][1]
    assert set(scores[0, "reader"]["by"]) == {"random", "neighbours", "same_token"}
    assert all(label.score is None for label in load_labels(SAE, made.labels))


def test_written_scores_stand_in_the_files(workbench: Any, made: Made) -> None:
    answer = workbench("labels", "score", made.labels, "--index", made.index, "--sae", made.sae, "--write", "--json", "-q")
    assert answer.code == 0, answer.err
    value = json.loads(answer.out)
    assert value["written"] == 5
    kept = load_labels(SAE, made.labels)
    told = {(row["feature"], row["author"]["name"]): row["score"] for row in value["labels"]}
    for label in (item for feature in THEMES for item in kept.all_of(feature)):
        assert label.score == told[label.feature, label.author["name"]]


def test_no_score_is_lost_whatever_the_order_of_scorers() -> None:
    reader, embedding = ({"kind": f"{name}_detection_auroc", "value": 0.7, "interval": None} for name in ("local", "embedding"))
    for first, second in ((reader, embedding), (embedding, reader)):
        item = _with_score(_with_score(FeatureLabel(1, "x"), first), second)
        assert item.score == embedding and item.scores == (reader,)
        for found in (reader, embedding):
            again = {**found, "value": 0.9}
            renewed = _with_score(item, again)
            both = {one["kind"]: one["value"] for one in (*renewed.scores, renewed.score or {})}
            assert renewed.score is not None and renewed.score["kind"] == embedding["kind"] and len(renewed.scores) == 1
            assert both == {reader["kind"]: 0.7, embedding["kind"]: 0.7, found["kind"]: 0.9}
    assert _with_score(item, None) is item


def test_controls_and_the_table(workbench: Any, made: Made) -> None:
    answer = workbench("labels", "score", made.labels, "--index", made.index, "--sae", made.sae, "--controls", "-q")
    assert answer.code == 0, answer.err
    assert "swapped" in answer.out and "one_token" in answer.out and "5 of 5 labels could be scored" in answer.out


def test_the_plan_of_an_offline_scorer_says_how_long_it_reads(workbench: Any, made: Made) -> None:
    given = ("--index", made.index, "--sae", made.sae, "--plan")
    quick, slow = (workbench("labels", "score", made.labels, *given, "--json", "--scorer", name).json["seconds"]
                   for name in ("embedding", "sentence"))  # fmt: skip
    assert 10 < quick < slow
    assert "time:" in workbench("labels", "score", made.labels, *given).out


def test_senses_and_the_closed_loop(workbench: Any, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    use_toy_embedders(monkeypatch, [*THEMES.values()])
    given = ("--index", made.index, "--sae", made.sae, "--senses", "--closed-loop", "--model", made.sae.parent / "model")
    answer = workbench("labels", "score", made.labels, *given, "--json", "-q")
    assert answer.code == 0, answer.err
    value = json.loads(answer.out)
    assert [row["feature"] for row in value["senses"]] == sorted(THEMES)
    assert not any(row["polysemantic"] for row in value["senses"]), "one theme each"
    loop = value["closed_loop"]
    assert loop["n_labels"] == 4 and loop["n_swapped"] == 3 and 0 <= loop["rank1"] <= 1
    shown = workbench("labels", "score", made.labels, *given, "-q").out
    assert "0 of 4 features have several senses" in shown and "closed loop" in shown


def test_an_endpoint_scores_and_the_plan_asks_nothing(workbench: Any, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_API_KEY", "sk-canary-score")
    with server.running(lambda prompt: server.completion(json.dumps([50] * prompt.count("</text ")))) as endpoint:
        asked = ("--scorer", "openai", "--scorer-model", "m", "--scorer-url", endpoint.url)
        given = ("--index", made.index, "--sae", made.sae, *asked)
        plan = json.loads(workbench("labels", "score", made.labels, *given, "--plan", "--json", "-q").out)
        assert plan["n_requests"] > 0 and not endpoint.bodies and plan["seconds"] is None
        answer = workbench("labels", "score", made.labels, *given, "--json", "-q")
        assert answer.code == 0, answer.err
        assert len(endpoint.bodies) == plan["n_requests"]
    assert {row["score"]["value"] for row in json.loads(answer.out)["labels"]} == {0.5}
    assert "sk-canary" not in answer.out + answer.err


def test_what_cannot_be_done_is_told_before_any_work(workbench: Any, made: Made, tmp_path: Path) -> None:
    refused = {
        "no feature index": (),
        "no scorer": ("--index", made.index, "--scorer", "glove"),
        "fuzzing": ("--index", made.index, "--task", "fuzzing"),
        "no endpoint model": ("--index", made.index, "--scorer", "openai"),
    }
    for found, options in refused.items():
        answer = workbench("labels", "score", made.labels, *options, "-q")
        assert answer.code == 2 and found in answer.err.lower() and "what to do" in answer.err, answer.err
    empty = tmp_path / "nothing"
    empty.mkdir()
    answer = workbench("labels", "score", empty, "--index", made.index, "--sae", made.sae, "-q")
    assert answer.code == 2 and "no label" in answer.err


def test_what_a_person_writes_while_labels_are_scored_stays(workbench: Any, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.labeling.scores import scoring

    real, hash = scoring.score, load_sae(made.sae).weights_hash
    signed = FeatureLabel(0, "my words", author={"kind": "human", "name": "Ada"}, status="confirmed")

    def slow(*given: Any, **named: Any) -> Any:
        save_label(signed, SAE, hash, made.labels, annotator=True)
        return real(*given, **named)

    monkeypatch.setattr(scoring, "score", slow)
    answer = workbench("labels", "score", made.labels, "--index", made.index, "--sae", made.sae, "--write", "--json", "-q")
    assert answer.code == 0, answer.err
    found = {item.label: item.score for item in load_labels(SAE, made.labels).all_of(0)}
    assert found.pop("my words") is None and len(found) == 2 and None not in found.values()
