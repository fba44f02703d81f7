"""Same-token negatives come from all places the positives come from; an index that an older version counted is counted anew."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.labeling.planted import planted_documents, planted_sae
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.building import build_index
from workbench.labeling.contexts.collection import collect_evidence
from workbench.labeling.contexts.encoding import Encoder
from workbench.labeling.contexts.index import FeatureIndex
from workbench.labeling.contexts.same_token import in_proportion
from workbench.labeling.contexts.shards import documents_of, shard_folder

SETTINGS = {"context": 8, "batch_tokens": 256, "shard_tokens": 400, "n_tokens": 100_000}
SOURCES = ("rollouts:evil:positive", "chats", "owt", "wikipedia")


@pytest.fixture(scope="module")
def world():
    """An SAE whose features 0 to 3 fire on the words of a theme; as many documents of each of four sources, one source behind the
    other, so that a piece of an index holds one of them."""
    model, sae = tiny_model(), planted_sae()
    documents = planted_documents(model, sae, n=240)
    return model, sae, [replace(one, source=SOURCES[i // 60]) for i, one in enumerate(documents)]


@pytest.fixture(scope="module")
def index(world, tmp_path_factory):
    model, sae, documents = world
    return build_index(sae, model, documents, tmp_path_factory.mktemp("index"), **SETTINGS)


def auroc(positives, negatives) -> float:
    above = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    return float(np.mean(above))


def sources_of(held) -> list[str]:
    return [one.context.source for one in held]


@pytest.mark.parametrize("n_shown", [12, 30])
def test_the_source_alone_does_not_tell_same_token_negatives_apart(world, index, n_shown):
    model, sae, documents = world
    read = collect_evidence(range(4), sae, model, documents, context=8, n_neighbours=0)
    for made in (index.collection(range(4), n_neighbours=0), read):
        for feature in range(4):
            negatives = made.same_token[feature]
            assert len(negatives) == 30 and not any(feature in held.active for held in negatives)
            assert len({(held.context.source, held.context.document) for held in negatives}) == 30
            for source in SOURCES:
                sides = made.held_out[feature], negatives[:n_shown]
                here, there = ([name == source for name in sources_of(held)] for held in sides)
                assert auroc(here, there) == pytest.approx(0.5, abs=0.06)
                assert auroc(there, here) == pytest.approx(0.5, abs=0.06)  # whichever of them is called the positive


def test_same_token_negatives_come_from_all_pieces(index):
    n_pieces = len(index.document["shards"])
    piece = {(source, name): i for i in range(n_pieces) for name, source, _ in documents_of(shard_folder(index.folder, i))}
    made = index.collection(range(4), n_neighbours=0)
    for held in made.same_token.values():
        spread = Counter(piece[one.context.source, one.context.document] for one in held)
        assert n_pieces > 8 and len(spread) > n_pieces / 2 and max(spread.values()) <= 9


def test_sources_in_proportion():
    names = ["owt"] * 20 + ["wikipedia"] * 20 + ["chats"] * 3 + ["rollouts:evil:positive"] * 20 + ["rollouts:evil:neutral"] * 20
    wanted = {"owt": 8, "chats": 4, "rollouts:evil:positive": 12}
    rows = in_proportion(names, wanted)
    assert sorted(rows) == list(range(len(names)))
    assert Counter(names[row] for row in rows[:12]) == {"owt": 4, "chats": 2, "rollouts:evil:positive": 6}
    without = [name for name in names if name not in ("owt", "rollouts:evil:positive")]  # others of the same kind step in
    found = Counter(without[row] for row in in_proportion(without, wanted)[:12])
    assert found == {"wikipedia": 4, "chats": 2, "rollouts:evil:neutral": 6}
    assert [names[row] for row in in_proportion(names, {"chats": 1})[:4]] == ["chats"] * 3 + ["owt"]


def as_of_schema_1(folder):
    """What an older version left: no schema among the settings, and other counts."""
    settings = json.loads((folder / "settings.json").read_text())
    del settings["schema"]
    (folder / "settings.json").write_text(json.dumps(settings))
    document = json.loads((folder / "feature_index.json").read_text())
    (folder / "feature_index.json").write_text(json.dumps({**document, "schema": 1, "key": "0" * 64}))


def test_an_index_of_the_old_schema_is_counted_anew_without_the_model(world, index, tmp_path, monkeypatch):
    model, sae, documents = world
    build_index(sae, model, documents, tmp_path, **SETTINGS)
    as_of_schema_1(tmp_path)
    with pytest.raises(WorkbenchError, match="an older version counted"):
        FeatureIndex.open(tmp_path)
    with pytest.raises(WorkbenchError, match="another sizes"):
        build_index(sae, model, documents, tmp_path, **{**SETTINGS, "n_top": 5})
    monkeypatch.setattr(Encoder, "shard", lambda *_: pytest.fail("something was read through the model"))
    again = build_index(sae, model, documents, tmp_path, **SETTINGS)
    assert again.key == index.key and again.collection([0], n_neighbours=0).random
    for name in ("feature_index.json", "feature_index.safetensors", "settings.json", "words.json"):
        assert (tmp_path / name).read_bytes() == (index.folder / name).read_bytes()


def test_a_half_counted_folder_of_the_old_schema_never_opens(world, tmp_path, monkeypatch):
    model, sae, documents = world
    build_index(sae, model, documents[:40], tmp_path, **SETTINGS)
    as_of_schema_1(tmp_path)

    def interrupted():
        yield documents[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(sae, model, interrupted(), tmp_path, **SETTINGS)
    with pytest.raises(WorkbenchError, match="not finished"):
        FeatureIndex.open(tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "schema": 99}))
    with pytest.raises(WorkbenchError, match="another schema"):
        build_index(sae, model, documents[:40], tmp_path, **SETTINGS)


def test_a_kind_of_negative_that_no_feature_has_is_said(world, index, caplog, monkeypatch):
    model, sae, documents = world
    monkeypatch.setattr(logging.getLogger("workbench"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        index.collection([0, 1])
        assert not [one for one in caplog.records if "negatives" in one.message]
        collect_evidence([0], sae, model, documents[:1], context=8, n_neighbours=0)
    assert any("negatives of the kind same_token" in one.message for one in caplog.records)
