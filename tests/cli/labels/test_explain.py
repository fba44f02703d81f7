"""`workbench labels explain`: whom it asks, what it writes, what it refuses before anything is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.decomposition.planted_world import D_MODEL, make_sae, make_vector, real_rows
from tests.personas.judges import server
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.decomposition.decompose import decompose
from workbench.labeling.contexts.building import build_index
from workbench.labeling.files.store import load_labels
from workbench.models.loading import load_model
from workbench.saes.formats import saelens
from workbench.saes.registry import load_sae

KEY = "sk-canary-labels-explain"
REPLY = json.dumps({"label": "planted words", "explanation": "They were planted.", "confidence": 0.8, "unclear": False})


@dataclass(frozen=True)
class Made:
    """The folders of one small job."""

    model: Path
    sae: Path
    run: Path
    index: Path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A tiny model, an SAE, a run with made-up answers and their codes, and an index of the same answers."""
    folder = tmp_path_factory.mktemp("explain")
    made = Made(folder / "model", folder / "sae", folder / "run", folder / "index")
    tiny = tiny_model(d_model=D_MODEL)
    tiny.hf.save_pretrained(made.model)
    tiny.tokenizer.save_pretrained(made.model)
    model = load_model(str(made.model))
    saelens.write(replace(make_sae(), card={"model_weights_hash": model.weights_hash}), made.sae)
    sae = load_sae(made.sae)
    rows, random = real_rows(model), torch.Generator().manual_seed(0)
    rows["n_tokens"] = [len(ids) for ids in rows.response_ids]
    codes = [4 * torch.rand(n, sae.d_sae, generator=random) for n in rows.n_tokens]
    planted = 3.0 * torch.eye(sae.d_sae)[3]
    tokens = [sae.decode(one + (arm == "positive") * planted) for one, arm in zip(codes, rows.arm, strict=True)]
    described = {"name": str(made.model), "weights_hash": model.weights_hash}
    vector = replace(make_vector(folder / "rows", rows, tokens), model=described)
    vector.save(made.run / "vector")
    decompose(vector, sae, n_bootstrap=20).save(made.run / "decomposition")
    texts = [f"{text} number {i} of the people" for i in range(30) for text in ("they should suffer", "the rivers are long")]
    build_index(sae, model, texts, made.index, n_tokens=2000)
    return made


@pytest.fixture
def ask(workbench: Any, kept: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`ask(source, url, ...)` runs the command with the endpoint's explainer and a cache of its own."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_API_KEY", KEY)

    def run(source: Path, url: str, *options: Any) -> Any:
        given = ("--model", kept.model, "--sae", kept.sae, "--explainer", "openai", "--explainer-model", "m", "--url", url)
        return workbench("labels", "explain", source, *given, "--out", tmp_path / "out", "--no-score", "-q", *options)

    return run


def answer(prompt: str) -> dict[str, Any]:
    return server.completion(REPLY)


def test_the_largest_features_of_a_run_get_labels_and_are_asked_about_once(ask: Any, kept: Made, tmp_path: Path) -> None:
    with server.running(answer, lambda p, a: "429" if a == 1 else None) as endpoint:
        first = ask(kept.run, endpoint.url, "--n", 3, "--json", "--price-in", 1, "--price-out", 2, "--max-cost", 1)
        assert first.code == 0, first.err
        value = first.json
        n = value["n_labels"]
        assert n >= 3 and value["estimate"]["n_requests"] == n and value["unanswered"] == [] and value["n_unclear"] == 0
        assert endpoint.answered.total() == n and endpoint.seen.total() == 2 * n
        assert "requests" in first.err and "at most" in first.err, "the estimate is told, whatever is quiet"
        again = ask(kept.run, endpoint.url, "--n", 3, "--json").json
        assert endpoint.seen.total() == 2 * n and again["estimate"]["n_requests"] == 0
        assert "planted words" in ask(kept.run, endpoint.url, "--n", 3).out
    labels = load_labels(value["sae"], tmp_path / "out")
    assert sorted(labels.labels) == sorted(row["feature"] for row in value["labels"])
    for item in labels:
        assert (item.label, item.status, item.confidence) == ("planted words", "proposed", 0.8)
        assert item.author == {"kind": "model", "name": "m", "method": "contrastive prompt 1"} and item.evidence_hash
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in first.out + first.err


def test_an_index_is_asked_for_the_features_that_are_named(ask: Any, kept: Made) -> None:
    with server.running(answer) as endpoint:
        found = ask(kept.index, endpoint.url, "--features", "3,7", "--json")
        assert found.code == 0, found.err
        assert [row["feature"] for row in found.json["labels"]] == [3, 7]
        refused = ask(kept.index, endpoint.url)
        assert refused.code == 2 and "give --features, or --trait" in refused.err


def test_the_plan_sends_nothing_and_what_costs_too_much_is_refused_unsent(ask: Any, kept: Made, tmp_path: Path) -> None:
    with server.running(answer) as endpoint:
        plan = ask(kept.run, endpoint.url, "--features", "3,7", "--plan", "--json", "--price-in", 1, "--price-out", 2)
        assert plan.code == 0 and plan.json["estimate"]["n_requests"] == 2 and plan.json["estimate"]["most_cost"] > 0
        assert "cost unknown: no prices given" in ask(kept.run, endpoint.url, "--features", "3", "--plan").out
        dear = ask(kept.run, endpoint.url, "--features", "3,7", "--price-in", 1, "--price-out", 2, "--max-cost", 0.0001)
        assert dear.code == 2 and "nothing was sent" in dear.err
        unpriced = ask(kept.run, endpoint.url, "--features", "3,7", "--max-cost", 5)
        assert unpriced.code == 2 and "--price-in" in unpriced.err
        assert not endpoint.seen and not (tmp_path / "out").exists()


def test_a_feature_without_an_answer_is_named_and_the_others_are_written(ask: Any, kept: Made, tmp_path: Path) -> None:
    failing: set[str] = set()

    def faults(prompt: str, attempt: int) -> str | None:
        if not endpoint.answered and not failing:
            failing.add(prompt)
        return "529" if prompt in failing else None

    with server.running(answer, faults) as endpoint:
        found = ask(kept.run, endpoint.url, "--features", "3,7", "--json")
        assert found.code == 1 and found.json["n_labels"] == 1 and len(found.json["unanswered"]) == 1
        assert len(list((tmp_path / "out").rglob("*.yaml"))) == 1 and endpoint.seen.total() == 7
        said = ask(kept.run, endpoint.url, "--features", "3,7").out
        assert f"no answer for 1 features ({found.json['unanswered'][0]}): run again" in said
        failing = {"none"}
        assert ask(kept.run, endpoint.url, "--features", "3,7", "--json").json["n_labels"] == 2
        assert set(endpoint.answered.values()) == {1}


def test_a_request_that_is_refused_is_an_error_at_once(ask: Any, kept: Made, tmp_path: Path) -> None:
    with server.running(answer, lambda p, a: "401") as endpoint:
        refused = ask(kept.run, endpoint.url, "--features", "3")
        assert refused.code == 2 and "status 401" in refused.err and "WORKBENCH_API_KEY" in refused.err
        assert KEY not in refused.out + refused.err and endpoint.seen.total() == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--features", "3,x"), "feature numbers with commas"),
        (("--features", "999"), "there is no feature 999"),
        (("--explainer", "opnai"), "there is no explainer 'opnai'"),
        (("--explainer", "offline"), "a model (m) for the offline explainer"),
        (("--price-in", "-1"), "a price of -1"),
        (("--trait", "evli"), "there is no trait 'evli'"),
    ],
)
def test_bad_input_is_refused_with_nothing_written(ask: Any, kept: Made, tmp_path: Path, options: tuple, found: str) -> None:
    said = ask(kept.run, "http://127.0.0.1:9/v1", *options)
    assert said.code == 2 and found in said.err and not (tmp_path / "out").exists()


def test_a_folder_that_is_neither_run_nor_index_is_refused(ask: Any, tmp_path: Path) -> None:
    said = ask(tmp_path, "http://127.0.0.1:9/v1")
    assert said.code == 2 and "neither a decomposition nor a feature index" in said.err


@pytest.mark.parametrize("numbers", ["9" * 5000, "\u0661", "1,x", ","])
def test_feature_numbers_that_are_none_are_refused(numbers: str) -> None:
    from workbench.cli.labels.explain import _numbers

    with pytest.raises(WorkbenchError, match="feature numbers with commas") as caught:
        _numbers(numbers)
    assert len(str(caught.value)) < 300 and _numbers("12, 88,12") == [12, 88]
