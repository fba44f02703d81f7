"""What is planted is found and named; thresholds keep what they promise; a filtered set is the data without the flagged lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.decomposition.planted_world import make_sae
from tests.steering.screen.data import CRUEL, HOOK, chat, cruel_vector, planted, random_vector, written
from workbench.base.errors import WorkbenchError
from workbench.labeling.labels import FeatureLabel, LabelSet
from workbench.models.sampling import Sampling
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.vectors import PersonaVector
from workbench.steering.screen.evaluation import auroc, planted_precision, unit_counts
from workbench.steering.screen.scoring import ScreenOptions, score_samples
from workbench.steering.screen.screening import Screening, screen
from workbench.steering.screen.thresholds import calibrated_threshold, percentile_threshold

OPTIONS = ScreenOptions(against="prompt", chunk=16, n_random=20, label_field="bad")


def placebos(model: Any) -> PlaceboVectors:
    """Six directions that mean nothing; the first comes close to "evil"."""
    drawn = torch.randn(6, 1, model.d_model, generator=torch.Generator().manual_seed(3))
    return PlaceboVectors(tuple("abcdef"), (("evil",), *[()] * 5), (HOOK,), drawn, model.description())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A planted data set, screened with the SAE and against placebos."""
    from tests.tiny import tiny_model

    model, folder = tiny_model(), tmp_path_factory.mktemp("screen")
    sae = make_sae(n_features=24, d_model=model.d_model, hook=HOOK, model_name=model.name)
    data = written(folder / "data.jsonl", [*planted(48), "{", "", {"messages": chat("a", "")}])
    vectors, known = [cruel_vector(model), random_vector(model, "nothing")], placebos(model)
    scores = score_samples(data, model, vectors, folder=folder / "work", sae=sae, placebos=known, options=OPTIONS)
    labels = LabelSet(sae.id, sae.weights_hash, {f: FeatureLabel(f, f"feature {f}") for f in range(12)})
    result = screen(scores, percentile=75, sae=sae, labels=labels, placebos=known)
    return {"model": model, "sae": sae, "scores": scores, "screening": result, "data": data, "vectors": vectors, "folder": folder}


def test_the_planted_direction_finds_the_bearing_samples_and_controls_do_not(found):
    evil = found["screening"].evaluation["evil"]
    assert evil["n_bearing"] == 12 and evil["n_others"] == 36
    assert evil["auroc"] > 0.85 and evil["interval"][0] > 0.5
    assert evil["random"]["n"] == 20 and evil["random"]["median"] < evil["auroc"]
    assert evil["placebos"]["n"] == 5 and found["screening"].evaluation["nothing"]["placebos"]["n"] == 6
    assert evil["length"]["value"] < 1 and evil["text"] is None


def test_a_score_splits_into_features_and_the_error(found):
    """score = sum_j dz_j <d_j, u> / m + <d_error, u> / m: with features that span the space there is no error left."""
    from dataclasses import replace as changed

    from workbench.steering.screen.columns import TRAIT

    model, d = found["model"], found["model"].d_model
    # h = z - 100 b + b: every code is positive, so that a ReLU encoder loses nothing
    sae = changed(found["sae"], encoder=torch.eye(d), encoder_bias=torch.full((d,), 100.0), decoder_directions=torch.eye(d),
                  decoder_bias=torch.full((d,), -100.0), subtract_bias=False, weights_hash="c" * 64)  # fmt: skip
    scores = score_samples(found["data"], model, found["vectors"], folder=found["folder"] / "exact", sae=sae, options=OPTIONS)
    result = screen(scores, percentile=75, sae=sae)
    samples, weight = scores.samples(), scores.directions["evil"]
    for line, _, index, change in scores.codes():
        made = float((torch.from_numpy(change) * weight[torch.from_numpy(index)]).sum())
        assert made == pytest.approx(float(samples.score[0, line - 1]), abs=1e-3)  # codes near 100 in float32
    assert result.accounts["evil"].explained == pytest.approx(1, abs=1e-2)
    assert scores.column(TRAIT, "evil").hook == HOOK


def test_features_are_ranked_by_what_sets_the_flagged_apart_and_named(found):
    account, flagged = found["screening"].accounts["evil"], found["screening"].flagged_by["evil"]
    scores, sae = found["scores"], found["sae"]
    weight = (sae.decoder_directions @ scores.directions["evil"]).numpy()
    sums = np.zeros((2, sae.d_sae))
    for line, _, index, change in scores.codes():
        sums[int(flagged[line - 1]), index] += change * weight[index]
    n = found["screening"].samples.scored
    difference = sums[1] / (n & flagged).sum() - sums[0] / (n & ~flagged).sum()
    assert [one.feature for one in account.contrast] == np.argsort(-np.abs(difference), kind="stable")[:12].tolist()
    assert [one.difference for one in account.contrast] == pytest.approx(np.sort(-np.abs(difference))[:12] * -1 * np.sign(
        difference[[one.feature for one in account.contrast]]), abs=1e-5)  # fmt: skip
    assert all(one.label == (f"feature {one.feature}" if one.feature < 12 else None) for one in account.contrast)
    top = found["screening"].top["evil"][0]
    (own,) = [(index, change) for line, _, index, change in scores.codes() if line == top.line]
    beyond = -sums[0] / (n & ~flagged).sum()
    beyond[own[0]] += own[1] * weight[own[0]]
    assert top.explained == pytest.approx(beyond.sum(), abs=1e-5)
    order = np.argsort(-np.abs(beyond), kind="stable")[:12].tolist()
    assert [part.feature for part in top.features] == order
    assert [part.value for part in top.features] == pytest.approx(beyond[order].tolist(), abs=1e-5)


def test_the_filtered_set_is_the_data_without_the_flagged_lines(found, tmp_path: Path):
    result: Screening = found["screening"]
    raw = found["data"].read_bytes().splitlines(keepends=True)
    kept = result.write_kept(tmp_path / "kept.jsonl").read_bytes()
    wanted = [raw[i] for i in range(len(raw)) if result.samples.scored[i] and not result.flagged[i]]
    assert kept == b"".join(wanted) and result.counts["flagged"] == len(raw) - len(wanted) - 3
    more = result.write_kept(tmp_path / "more.jsonl", keep_unscored=True).read_bytes()
    assert more == kept + raw[48] + raw[50]  # the malformed line and the empty reply; a blank line is nothing
    assert result.counts == {"lines": 51, "scored": 48, "unscored": 1, "malformed": 1, "blank": 1,
                             "flagged": result.counts["flagged"], "clipped": 0}  # fmt: skip


def test_a_sample_is_flagged_by_any_trait(found):
    result: Screening = found["screening"]
    union = result.flagged_by["evil"] | result.flagged_by["nothing"]
    assert (result.flagged == union).all() and result.flagged_by["evil"].sum() == 12
    ranked = result.ranking("evil")
    assert sorted(ranked) == list(range(1, 49)) and set(ranked[:12]) == set(np.flatnonzero(result.flagged_by["evil"]) + 1)


def test_the_json_is_whole_and_the_ranking_is_a_table_of_all_lines(found, tmp_path: Path):
    from pyarrow import parquet

    value = json.loads(json.dumps(found["screening"].to_json(), allow_nan=False))
    assert value["traits"]["evil"]["n_flagged"] == 12 and value["unscored"]["n"] == 2
    assert value["unscored"]["lines"][0] == {"line": 49, "turn": -1, "why": value["unscored"]["lines"][0]["why"]}
    table = parquet.read_table(found["screening"].write_ranking(tmp_path / "ranking.parquet")).to_pydict()
    assert table["line"] == list(range(1, 52)) and sum(table["flagged:evil"]) == 12


def test_the_clean_threshold_is_exceeded_at_the_stated_rate(found, tmp_path: Path):
    clean = [record for record in planted(60) if not record["bad"]]
    data = written(tmp_path / "clean.jsonl", clean)
    reference = score_samples(data, found["model"], found["vectors"], folder=tmp_path / "work", options=OPTIONS)
    alone = reference.samples().score[reference.traits.index("evil")]
    result = screen(found["scores"], false_positive_rate=0.2, clean=reference)
    # Two traits: each may flag half as many, so that no more than a fifth of clean samples is flagged by any of them.
    assert result.thresholds["evil"].level == 0.1 and result.thresholds["evil"].value == calibrated_threshold(alone, 0.1).value
    assert result.thresholds["evil"].kind == "false_positive_rate" and result.thresholds["evil"].n_reference == 45
    bad = found["scores"].samples().label == 1
    assert result.flagged_by["evil"][bad].mean() > 0.4 and result.flagged_by["evil"][~bad].mean() < 0.25
    refused: list[tuple[dict[str, Any], str]] = [
        ({"false_positive_rate": 0.1}, "without clean data"), ({"clean": reference}, "without a rate"),
        ({"clean": reference, "false_positive_rate": 0.1, "percentile": 50}, "one of them"),
    ]  # fmt: skip
    for more, words in refused:
        with pytest.raises(WorkbenchError, match=words):
            screen(found["scores"], **more)
    other = replace(reference, directions={**reference.directions, "evil": torch.ones(32)})
    with pytest.raises(WorkbenchError, match="scored with other vectors"):
        screen(found["scores"], clean=other, false_positive_rate=0.1)


def test_split_conformal_thresholds_hold_on_average_whatever_the_distribution():
    source = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        clean, new = source.standard_t(2, 39), source.standard_t(2, 50)
        rates.append((new > calibrated_threshold(clean, 0.1).value).mean())
    # exact expectation 1 - 36/40 = .1; the mean of 400 has a standard error below .004
    assert np.mean(rates) == pytest.approx(0.1, abs=0.015)


def test_thresholds_need_enough_scores_and_sound_numbers():
    assert percentile_threshold(np.array([1.0, 2.0, np.nan, 3.0]), 50).value == 2
    assert calibrated_threshold(np.arange(19.0), 0.05).value == 18
    for call, words in ((lambda: percentile_threshold(np.array([1.0]), 50), "1 scored samples"),
                        (lambda: percentile_threshold(np.arange(3.0), 101), "percentile 101"),
                        (lambda: calibrated_threshold(np.arange(18.0), 0.05), "at least 19"),
                        (lambda: calibrated_threshold(np.arange(18.0), 1.5), "rate 1.5")):  # fmt: skip
        with pytest.raises(WorkbenchError, match=words):
            call()


def test_precision_at_the_planted_share_is_what_drawn_data_sets_have():
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(4000) < 2000
    scores = torch.randn(4000, generator=source) + 1.5 * labels
    counts = unit_counts(list(range(4000)), 50, 0)
    told = planted_precision(scores, labels, 0.1, counts)
    drawn = []
    for _ in range(200):
        bad = torch.randperm(2000, generator=source)[:100]
        good = 2000 + torch.randperm(2000, generator=source)[:900]
        taken = torch.cat([bad, good])[scores[torch.cat([bad, good])].topk(100).indices]
        drawn.append(float((taken < 2000).double().mean()))
    assert told["value"] == pytest.approx(sum(drawn) / len(drawn), abs=0.02)
    assert told["interval"][0] < told["value"] < told["interval"][1]
    perfect = planted_precision(labels.double(), labels, 0.25, counts)
    assert perfect["value"] == pytest.approx(1)


def test_the_interval_of_an_auroc_grows_when_samples_share_units():
    source = torch.Generator().manual_seed(1)
    labels = torch.arange(200) % 2 == 0
    unit = torch.arange(200) // 20
    scores = torch.randn(200, generator=source) + 3 * torch.randn(10, generator=source)[unit] * labels + labels
    wide = auroc(scores, labels, unit_counts(unit.tolist(), 500, 0))
    narrow = auroc(scores, labels, unit_counts(list(range(200)), 500, 0))
    assert wide["value"] == narrow["value"]
    assert wide["interval"][1] - wide["interval"][0] > 1.2 * (narrow["interval"][1] - narrow["interval"][0])


def test_words_of_the_same_rollouts_are_a_column_of_their_own(found, tmp_path: Path):
    import pandas as pd

    from workbench.personas.vectors import empty_rows

    texts = [CRUEL[i % 3] for i in range(12)] + ["the weather is cold"] * 12
    rows = pd.DataFrame({"response": texts, "arm": ["positive"] * 12 + ["negative"] * 12, "weight": [1.0] * 24})
    vector = found["vectors"][0]
    vector = PersonaVector(vector.trait, vector.model, HOOK, (HOOK,), vector.directions, None, None, None,
                           pd.concat([empty_rows(), rows], ignore_index=True))  # fmt: skip
    scores = score_samples(found["data"], found["model"], [vector], folder=tmp_path / "work", options=OPTIONS)
    told = screen(scores).evaluation
    assert told is not None and told["evil"]["text"]["value"] > 0.95


def test_nothing_is_evaluated_without_labels_of_both_kinds(tmp_path: Path, tiny_model):
    records = [record for record in planted(24) if not record["bad"]]
    for folder, field in (("one kind", "bad"), ("no field", None)):
        scores = score_samples(written(tmp_path / folder / "d.jsonl", records), tiny_model, [cruel_vector(tiny_model)],
                               folder=tmp_path / folder / "w", options=replace(OPTIONS, label_field=field, n_random=0,
                                                                               sampling=Sampling(max_new_tokens=4)))  # fmt: skip
        assert screen(scores).evaluation is None
