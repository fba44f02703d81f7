"""What the laboratory says of methods whose faults are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import workbench as wb
import workbench.lab as lab
from workbench.base.errors import WorkbenchError
from workbench.decomposition.methods import COMPARISON_METHODS, METHODS
from workbench.lab.scores import score

Small = Callable[..., lab.Difficulty]


def test_with_a_perfect_dictionary_the_ten_largest_shares_are_the_ten_planted_features() -> None:
    found = lab.run("easy", seeds=2)
    for method in ("shares", "pursuit"):
        row = found.row("easy", method)
        assert row.precision_at_10 == row.recall_at_10 == 1.0 and row.sign_errors == 0.0
    assert found.row("easy", "shares").power == found.row("easy", "oracle").power == 1.0
    assert found.row("easy", "shares").energy_error < 0.1


def test_without_a_persona_tests_find_something_as_rarely_as_they_say(small: Small) -> None:
    found = lab.run([small(n_planted=0)], seeds=20)
    for method in ("shares", "crossed"):
        row = found.row("small", method)
        # The rate is the share of worlds with any discovery: of 20, five or more at .05 have a chance of .003.
        assert row.fdr_at_05 <= 4 / 20 and row.fdr_at_2 <= 9 / 20
        assert row.power is None and row.energy_error is None and row.power_vs_oracle is None
    assert found.row("small", "tokens").fdr_at_05 > found.row("small", "shares").fdr_at_05


def test_wording_fools_the_test_over_questions_and_not_the_crossed_one(small: Small) -> None:
    found = lab.run([small("worded", wording_sd=0.7, n_questions=20)], seeds=6)
    assert found.row("worded", "shares").fdr_at_05 > 0.4
    assert found.row("worded", "crossed").fdr_at_05 < 0.15


def test_encoding_the_vector_cannot_say_what_it_takes_away(small: Small) -> None:
    found = lab.run([small(rate_change=2.5, strength_change=1.4)], seeds=2)
    row = found.row("small", "naive")
    assert row.power == 0.5  # half of the planted changes are negative
    assert found.row("small", "shares").power > 0.9


def test_encoding_the_vector_of_a_biased_world_repeats_the_code_of_nothing(small: Small) -> None:
    found = lab.run([small(bias_norm=20.0, rate_change=2.5, strength_change=1.4)], seeds=2)
    overlap = found.overlaps["small"]
    assert overlap is not None and overlap > 0.8
    assert found.row("small", "naive").power_vs_oracle < 0.4 < 0.9 < found.row("small", "shares").power_vs_oracle
    assert found.row("small", "naive").energy_error > 10


def test_signs_follow_the_persona(small: Small) -> None:
    def upside_down(trial: lab.Trial) -> lab.Findings:
        return lab.Findings(-trial.world.change, trial.world.change.abs(), (trial.world.change == 0).double())

    found = lab.run([small()], seeds=1, tests={"upside down": upside_down})
    assert found.row("small", "upside down").sign_errors == 1.0 and found.row("small", "upside down").power == 0.0
    assert found.row("small", "upside down").fdr_at_05 == 0.0


def test_the_truth_itself_scores_full_marks(small: Small) -> None:
    def truth(trial: lab.Trial) -> lab.Findings:
        return lab.Findings(trial.world.change, trial.world.change.abs(), (trial.world.change == 0).double())

    row = lab.run([small()], seeds=2, tests={"truth": truth}).row("small", "truth")
    assert (row.fdr_at_05, row.power, row.sign_errors) == (0.0, 1.0, 0.0)
    assert row.energy_error == pytest.approx(0, abs=1e-12) and row.recall_at_10 == 1.0
    assert row.precision_at_10 == pytest.approx(0.6)  # six changes among ten


def test_discoveries_of_nuisance_are_counted_apart(small: Small) -> None:
    row = lab.run([small(n_planted=0, n_nuisance=6, rate_change=2.5, strength_change=1.4)], seeds=2).row("small", "shares")
    assert row.nuisance > 4 and row.fdr_at_05 < 0.4


def test_every_method_of_the_registry_is_scored_with_those_of_the_user(small: Small) -> None:
    def mine(vector: torch.Tensor, sae: object, n_atoms: int) -> torch.Tensor:
        return METHODS["pursuit"](vector, sae, n_atoms)

    found = lab.run([small()], seeds=2, methods={"mine": mine})
    assert {row.method for row in found.rows} == {"shares", "crossed", "tokens", "oracle", "mine", *METHODS, *COMPARISON_METHODS}
    assert replace(found.row("small", "mine"), method="pursuit") == found.row("small", "pursuit")
    assert not found.row("small", "mine").controlled and found.row("small", "shares").controlled


def test_an_sae_of_the_user_is_judged_by_matching(small: Small) -> None:
    def mine(world: lab.World, seed: int) -> object:
        exact = lab.SAES["perfect"](world, seed)
        return wb.SparseAutoencoder(**{name: getattr(exact, name) for name in (
            "id", "hook", "model_name", "architecture", "encoder", "encoder_bias", "decoder_directions", "decoder_bias",
            "weights_hash", "threshold")})  # fmt: skip

    found = lab.run([small()], sae=mine, seeds=1)
    assert found.sae == "mine" and found.rows[0].truth == "matching"
    ours = lab.run([small()], seeds=1)
    assert found.row("small", "shares").fdr == ours.row("small", "shares").fdr


def test_the_same_arguments_give_the_same_figures(small: Small) -> None:
    one, same = (lab.run([small()], seeds=2) for _ in range(2))
    assert one.rows == same.rows and one.overlaps == same.overlaps
    assert lab.run(small(), seeds=[1]).rows != lab.run([small()], seeds=[0]).rows


def test_results_are_a_frame_an_object_and_a_figure(small: Small) -> None:
    found = wb.lab.run([small(), small("none", n_planted=0)], seeds=2)
    frame = found.to_pandas()
    assert len(frame) == len(found.rows) and set(frame["difficulty"]) == {"small", "none"}
    stored = found.to_json()
    assert stored["rows"][0]["method"] == "shares" and stored["difficulties"][0]["n_features"] == 48
    json.dumps(stored["rows"], allow_nan=False)
    svg = found.figure().svg
    assert svg.startswith("<svg") and "small" in svg and "Realised false discovery rate" in svg
    assert "Planted truth" in (found._repr_html_() or "")
    assert "2 seeds" in repr(found)


def test_aims_say_what_is_missed_and_whether_beyond_chance() -> None:
    row = lab.LabRow(
        "easy", "shares", True, "codes", 9, 0.04, 0.12, 0.5, (0.01, 0.02, 0.01), 10.0, 0.0, 0.0, 0.02, 0.7, 0.75, 0.1, 1.0, 1.0
    )
    aims = {aim.name: (aim.met, aim.clearly) for aim in lab.LabResult((row,), "perfect", (0,), ()).aims("shares")}
    assert aims["FDR at 0.05"] == (True, False) and aims["FDR at 0.1"] == (False, False) and aims["FDR at 0.2"] == (False, True)
    assert aims["power beside the oracle's"] == (False, True) and aims["wrong signs"] == (False, True)


def test_a_list_without_error_rates_is_as_long_as_the_truth(small: Small) -> None:
    trial = lab.make_trial(small(), lab.SAES["perfect"], 0)
    ranking = torch.arange(48).double()
    assert score(trial, lab.Findings(ranking, ranking)).n_discoveries == 6
    nothing = torch.zeros(48, dtype=torch.float64)
    assert score(trial, lab.Findings(nothing, nothing)).n_discoveries == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"difficulties": "esay"}, "no difficulty 'esay'.*Did you mean 'easy'"),
        ({"sae": "perfekt"}, "no SAE of the laboratory 'perfekt'"),
        ({"seeds": 0}, "0 seeds. Expected: at least one"),
        ({"seeds": []}, "at least one"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(WorkbenchError, match=message):
        lab.run(**arguments)


def test_findings_of_another_length_are_refused(small: Small) -> None:
    with pytest.raises(WorkbenchError, match=r"findings of 'short' have coefficients of shape \(3,\)"):
        lab.run([small()], seeds=1, methods={"short": lambda vector, sae, n_atoms: torch.ones(3)})


def test_an_sae_of_another_width_is_refused(small: Small) -> None:
    def narrow(world: lab.World, seed: int) -> object:
        return lab.SAES["perfect"](lab.make_world(small("other", d_model=60), seed), seed)

    with pytest.raises(WorkbenchError, match=r"shape \(48, 60\).*the width of small"):
        lab.run([small()], sae=narrow, seeds=1)
