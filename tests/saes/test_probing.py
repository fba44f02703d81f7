"""Probes on planted truth: one feature that is the concept, codes that know nothing, and texts through a real model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from scipy.sparse import csr_matrix

from tests.saes.planted import lossless_sae, small_sae
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.models.loading import Model
from workbench.saes.evaluation import labelled
from workbench.saes.evaluation.pooling import PooledRows, pool, text_chat
from workbench.saes.evaluation.probing import (
    fit_probe,
    mean_difference,
    mean_over_sets,
    probe_aucs,
    top_features,
)


def _planted(n: int = 200, seed: int = 0) -> tuple[PooledRows, torch.Tensor]:
    """Feature 7 of "true" fires on positives only; "noise" has codes that do not depend on the label."""
    random = generator(seed)
    labels = torch.arange(n) % 2 == 0
    codes = torch.rand(n, 40, generator=random) * (torch.rand(n, 40, generator=random) < 0.2)
    noise = codes.clone()
    codes[:, 7] = labels.float() * (1 + torch.rand(n, generator=random))
    raw = torch.randn(n, 12, generator=random)
    return PooledRows(raw, {"true": csr_matrix(codes.numpy()), "noise": csr_matrix(noise.numpy())}, torch.ones(n)), labels


def _halves(rows: PooledRows, labels: torch.Tensor) -> dict[str, dict[str, float]]:
    return probe_aucs(
        rows.select(torch.arange(120)), labels[:120], rows.select(torch.arange(120, 200)), labels[120:], ks=(1, 2, 5)
    )


def test_one_feature_that_is_the_concept_gives_an_auc_of_one_at_k_1() -> None:
    rows, labels = _planted()
    areas = _halves(rows, labels)
    assert areas["true"]["1"] == 1.0
    assert min(areas["true"].values()) > 0.99  # more features can only add noise
    assert top_features(rows.codes["true"], labels, 1).tolist() == [7]


def test_codes_and_activations_that_know_nothing_stay_near_one_half() -> None:
    # 20 draws of an AUC with 40 rows a class, each with standard deviation .065: the mean has .015
    areas = [_halves(*_planted(seed=seed)) for seed in range(20)]
    for name, k in (("noise", "5"), ("raw", "all")):
        assert abs(sum(one[name][k] for one in areas) / 20 - 0.5) < 0.06, name


def test_a_feature_that_falls_silent_on_positives_serves_as_well() -> None:
    rows, labels = _planted()
    assert _halves(rows, ~labels)["true"]["1"] == 1.0


def test_sparse_and_dense_codes_give_the_same_probe() -> None:
    rows, labels = _planted()
    dense = torch.from_numpy(rows.codes["true"].toarray())
    torch.testing.assert_close(mean_difference(rows.codes["true"], labels), mean_difference(dense, labels))
    sparse_scores = fit_probe(rows.codes["noise"], labels, k=3).scores(rows.codes["noise"])
    noise = torch.from_numpy(rows.codes["noise"].toarray())
    torch.testing.assert_close(sparse_scores, fit_probe(noise, labels, k=3).scores(noise))


def test_the_choice_of_features_does_not_depend_on_their_scale() -> None:
    rows, labels = _planted()
    scale = torch.logspace(-3, 3, 40).numpy()
    scaled = csr_matrix(rows.codes["noise"].toarray() * scale)
    assert torch.equal(top_features(rows.codes["noise"], labels, 5), top_features(scaled, labels, 5))
    dense = torch.from_numpy(rows.codes["noise"].toarray())
    assert torch.equal(top_features(rows.codes["noise"], labels, 5), top_features(dense, labels, 5))
    dense[:, 3] = 1e6  # constant columns say nothing
    assert 3 not in top_features(dense, labels, 20)


def test_rows_of_one_class_give_a_probe_without_an_opinion() -> None:
    rows, labels = _planted()
    assert not fit_probe(rows.raw, torch.ones_like(labels)).scores(rows.raw).any()


def test_means_are_over_sets() -> None:
    sets = {"a": {"raw": {"all": 0.6}}, "b": {"raw": {"all": 0.8}}}
    assert mean_over_sets(sets)["raw"]["all"] == pytest.approx(0.7)
    assert mean_over_sets({}) == {}


def test_pooled_codes_are_means_of_codes_over_the_tokens_that_count(tiny_model: Model) -> None:
    sae = lossless_sae(tiny_model.d_model, 1)
    rows = [text_chat(torch.randint(7, 300, (n,), generator=generator(n)).tolist()) for n in (9, 14, 5, 11)]
    mean, last = (pool(tiny_model, {"a": sae}, rows, pooling=how) for how in ("mean", "last"))
    for pooled in (mean, last):  # +/- axes: positive minus negative codes are the activations themselves
        codes = torch.from_numpy(pooled.codes["a"].toarray())
        rebuilt = codes[:, : tiny_model.d_model] - codes[:, tiny_model.d_model :]
        torch.testing.assert_close(rebuilt, pooled.raw, rtol=1e-4, atol=1e-5)
    assert mean.n_tokens.tolist() == [8, 13, 4, 10]
    assert last.n_tokens.tolist() == [1, 1, 1, 1]
    assert (mean.raw - last.raw).abs().max() > 0.01


def test_pooling_does_not_depend_on_batches_or_on_how_many_codes_are_held(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = small_sae(d_model=tiny_model.d_model)
    rows = [text_chat(torch.randint(7, 300, (n,), generator=generator(n)).tolist()) for n in (9, 14, 5, 11)]
    whole = pool(tiny_model, {"a": sae}, rows).codes["a"].toarray()
    monkeypatch.setattr("workbench.saes.evaluation.fitness.VALUES_AT_ONCE", 3 * sae.d_sae)
    parts = pool(tiny_model, {"a": sae}, rows, batch_tokens=16).codes["a"].toarray()
    torch.testing.assert_close(torch.from_numpy(parts), torch.from_numpy(whole), rtol=1e-4, atol=1e-5)


def test_an_unknown_pooling_is_refused(tiny_model: Model) -> None:
    with pytest.raises(WorkbenchError, match="no pooling 'first'"):
        pool(tiny_model, {"a": lossless_sae(tiny_model.d_model, 1)}, [text_chat([8, 9, 10])], pooling="first")


# The labelled sets themselves


def test_the_list_that_ships_names_its_transfers_and_a_dozen_sets() -> None:
    sets, transfers = labelled.probe_sets()
    names = [one.name for one in sets]
    assert len(names) == len(set(names)) >= 12
    assert all({one.train, one.test} <= set(names) for one in transfers)


@pytest.mark.assets
def test_labelled_texts_are_balanced_seeded_unique_and_never_trained_on() -> None:
    from workbench.saes.corpus import HELD_OUT_PERCENT, Document

    sets, _ = labelled.probe_sets()
    one, again, other = (labelled.labelled_texts(sets[0], n_rows=60, max_characters=400, seed=s) for s in (0, 0, 1))
    assert one.texts == again.texts != other.texts
    assert len(set(one.texts)) == 60
    assert int(one.labels.sum()) == 30
    assert all(Document.of(text, "x").bucket < HELD_OUT_PERCENT for text in one.texts)  # short: not cut
    train, test = one.split()
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(60))
    assert (len(train), int(one.labels[test].sum())) == (36, 12)


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An asset of two sets; "1_own" holds a third of texts whose first 160 characters are a training document's."""
    import zstandard

    from workbench.saes.corpus import HELD_OUT_PERCENT, Document

    held, trained = [], []
    for i in range(3000):
        text = f"{i} " + "the same long beginning of a text, " * 6
        is_held = Document.of(text, "x").bucket < HELD_OUT_PERCENT
        (held if is_held else trained).append(text)
    near = []
    for text in trained[:200]:
        ends = (f"{text}another end {j}" for j in range(200))
        near.append(next(end for end in ends if Document.of(end, "x").bucket < HELD_OUT_PERCENT))
    own = [(text, str(i % 2)) for i, text in enumerate([*held[:100], *near])]
    for name, rows in {"0_first": [(text, "0") for text in trained[:200]], "1_own": own, "2_hate_own": own}.items():
        table = io.StringIO()
        csv.writer(table).writerows([("prompt", "target"), *rows])
        (tmp_path / f"{name}.csv.zst").write_bytes(zstandard.ZstdCompressor().compress(table.getvalue().encode()))
    monkeypatch.setattr("workbench.models.assets.asset_path", lambda _: tmp_path)
    labelled.training_beginnings.cache_clear()
    yield tmp_path
    labelled.training_beginnings.cache_clear()


@pytest.mark.parametrize("name", ["1_own", "2_hate_own"])
def test_texts_that_begin_as_a_training_document_does_are_left_out(sets: Path, name: str) -> None:
    from workbench.saes.corpus import documents

    found = labelled.labelled_texts(labelled.ProbeSet(name, "1", ""), n_rows=400, max_characters=400, seed=0)
    trained = {one.text[:160] for one in documents("sae-probes", "train")}
    assert len(trained) == 200
    assert 20 <= len(found.texts) <= 100
    assert not [text for text in found.texts if text[:160] in trained]


@pytest.mark.assets
def test_the_sets_that_ship_hold_what_their_concept_says() -> None:
    listed, _ = labelled.probe_sets()
    for one in listed:
        found = labelled.labelled_texts(one, n_rows=100, max_characters=400, seed=0)
        news = [text for text, label in zip(found.texts, found.labels, strict=True) if "news" in one.concept and not label]
        assert not [text for text in news if "#include" in text or ("import " in text[:200] and ";" in text)], one.name


@pytest.mark.assets
def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(WorkbenchError, match="92_glue_sst2"):
        labelled.labelled_texts(labelled.ProbeSet("glue_sst2", "1", ""), n_rows=20, max_characters=99, seed=0)


@pytest.mark.assets
def test_a_target_that_no_text_has_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="0 usable texts a class"):
        labelled.labelled_texts(labelled.ProbeSet("92_glue_sst2", "happy", ""), n_rows=20, max_characters=99, seed=0)


def test_a_list_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sets.yaml"
    path.write_text("sets:\n  - {name: a, positive: 1}\n", encoding="utf-8")
    assert labelled.probe_sets(path) == ((labelled.ProbeSet("a", "1", ""),), ())
