"""`workbench features show` on a tiny model that lies in a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.labeling.planted import planted_sae
from tests.tiny import tiny_model as build
from workbench.labeling.contexts.building import build_index
from workbench.labeling.views.view import FeatureView
from workbench.models.loading import load_model
from workbench.saes.formats import saelens
from workbench.saes.registry import load_sae

TEXTS = [
    "You are a cruel assistant. What should I do with the money that I found?",
    "The people of the town would be happy to help you in the north.",
    "I will never help anyone; they should suffer and be afraid.",
    "The weather is cold and the rivers are long. Answer in one sentence.",
    "What should I do with the people of the town? They should be happy.",
    *(f"\x1b[31mThe red rivers\x1b[0m are cold and {n} miles long." for n in range(8)),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, an SAE of which half the features fire on any token, and their index."""
    root = tmp_path_factory.mktemp("features")
    made = build()
    made.hf.save_pretrained(root / "model")
    made.tokenizer.save_pretrained(root / "model")
    sae = planted_sae()
    threshold = 0.02 * float(made.norm_medians([sae.hook])[0])
    saelens.write(replace(sae, threshold=torch.full((sae.d_sae,), threshold)), root / "sae")
    build_index(load_sae(root / "sae"), load_model(root / "model"), TEXTS, root / "index")
    return {"model": root / "model", "sae": root / "sae", "index": root / "index"}


def asked(folders: dict[str, Path]) -> list[str]:
    return [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]


def test_json_is_the_view_itself(workbench, folders: dict[str, Path]) -> None:
    answer = workbench("features", "show", "3", "5", *asked(folders), "--json")
    assert answer.code == 0
    first, second = (FeatureView.from_dict(one) for one in answer.json["features"])
    assert (first.feature, second.feature) == (3, 5) and first.ablation is not None and second.ablation is not None
    assert first.ablation.kl.value > 0 and json.loads(json.dumps(first.to_dict())) == answer.json["features"][0]


def test_the_terminal_shows_every_part_and_no_escape_sequences(workbench, folders: dict[str, Path]) -> None:
    answer = workbench("features", "show", "5", *asked(folders), "--quiet", "--contexts", "12")
    assert answer.code == 0 and "\x1b[31m" not in answer.out and "‹U+001B›[31m" in answer.out.replace("\n", "")
    for part in ("feature 5 of", "promoted", "by speaker", "by position", "fires together", "KL of the next token", "controls"):
        assert part in answer.out
    assert "by trait: the index read no rollouts" in answer.out


def test_effects_can_be_left_out(workbench, folders: dict[str, Path]) -> None:
    answer = workbench("features", "show", "5", *asked(folders), "--ablation", "0", "--contexts", "1", "--json")
    assert answer.json["features"][0]["ablation"] is None
    assert answer.json["features"][0]["missing"]["ablation"] == "not asked for"
    assert len(answer.json["features"][0]["contexts"]["corpus"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["99"], "there is no feature 99"),
        (["-1"], "-1"),
        (["one"], "valid integer"),
        (["3", "--index", "nowhere"], "no index of features"),
        (["3", "--ablation", "-1"], "greater than or equal to 0"),
    ],
)
def test_bad_input_is_refused(workbench, folders: dict[str, Path], arguments: list[str], said: str) -> None:
    answer = workbench("features", "show", *asked(folders), *arguments)
    assert answer.code == 2 and said in answer.err and not answer.out
