"""Does the trait move a feature further than contrasts that are no persona?"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.decomposition.planted_world import make_sae
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.decomposition.decompose import decompose
from workbench.decomposition.placebos import (
    PlaceboCodes,
    codes_of_runs,
    placebo_codes,
    specificity,
    standard_errors,
)
from workbench.models.sampling import Sampling
from workbench.personas.placebos import list_placebos, placebo_vectors
from workbench.personas.rollouts import RolloutDesign

N, D_SAE, D_MODEL = 16, 20, 24


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codes(*, n: int = N, scale: float = 0.1, seed: int = 0, d_sae: int = D_SAE) -> PlaceboCodes:
    deltas = scale * randn(n, d_sae, seed=seed)
    related = (("evil",), *((),) * (n - 1))
    sae = {"id": "planted", "hook": "blocks.1.hook_resid_post", "weights_hash": "b" * 64}
    return PlaceboCodes(tuple(f"p{i}" for i in range(n)), related, randn(n, D_MODEL), deltas, deltas.abs() / 9, sae, {}, {})


def test_what_no_placebo_moves_so_far_is_the_traits_own_and_the_rest_is_not() -> None:
    delta = torch.zeros(D_SAE)
    delta[3], delta[7], delta[11], delta[2] = 2.0, -2.0, 0.1, 0.1
    found = specificity(delta, torch.full((D_SAE,), 0.02), codes())
    assert {j for j in range(D_SAE) if found.q_value[j] <= 0.05} == {3, 7} and found.count == 2
    assert found.score[3] > 0 > found.score[7] and found.score[11].abs() < 3
    assert found.p_value[0].isnan()  # silent: not tested


def test_a_trait_that_is_one_more_placebo_finds_no_more_than_they_do() -> None:
    """400 features and 30 contrasts of one kind: every one left out in turn stays at the nominal rate."""
    contrasts = codes(n=31, d_sae=400, seed=3)
    found = specificity(contrasts.delta_codes[0], contrasts.errors[0], contrasts, trait="evil")
    assert len(found.placebo_counts) == 30
    with_any = sum(count > 0 for count in found.placebo_counts)
    assert with_any <= 4 and found.count <= 2


def test_contrasts_with_features_of_their_own_show_in_the_counts() -> None:
    contrasts = codes(n=20, d_sae=400, seed=4)
    own = contrasts.delta_codes.clone()
    own[torch.arange(20), torch.arange(20) * 7] = 50.0  # each placebo has one feature that no other moves
    found = specificity(torch.zeros(400).index_fill(0, torch.tensor([399]), 3.0), torch.full((400,), 0.02),
                        replace(contrasts, delta_codes=own))  # fmt: skip
    assert found.count == 1 and sorted(found.placebo_counts)[len(found.placebo_counts) // 2] >= 1


def test_a_noisy_difference_is_not_specific_however_quiet_the_placebos_are() -> None:
    quiet = codes(scale=1e-6)
    delta = torch.full((D_SAE,), 0.5)
    assert specificity(delta, torch.full((D_SAE,), 0.01), quiet).count == D_SAE
    assert specificity(delta, torch.full((D_SAE,), 0.5), quiet).count == 0


def test_standard_errors_are_those_of_a_mean_over_questions() -> None:
    per_question = randn(12, 5, seed=5).double()
    expected = per_question.std(dim=0) / 12**0.5
    torch.testing.assert_close(standard_errors(per_question / 12), expected.float())
    assert standard_errors(per_question[:1]).isinf().all()


def test_codes_are_saved_beside_the_sae_and_used_by_decompose(planted, tmp_path) -> None:
    world = planted(spread=0.5)
    sae = replace(world.sae, folder=tmp_path)
    assert PlaceboCodes.beside(sae) is None
    bare = decompose(world.vector, sae, n_bootstrap=20)
    assert bare.placebo_q.isnan().all() and any("placebo" in told for told in bare.warnings)
    codes(scale=0.05).save(tmp_path / "placebos")
    parts = decompose(world.vector, sae, n_bootstrap=20)
    assert {j for j in range(D_SAE) if parts.placebo_q[j] <= 0.05} == {3, 5, 7, 11}
    assert parts.placebo_score[11] < 0 < parts.placebo_score[3]
    known = parts.controls["placebos"]
    assert known["n"] == N and known["n_specific"] == 4 and len(known["counts"]) == N and known["rank_p"] == pytest.approx(1 / 17)
    assert parts.controls["random_directions"]["vectors"]["placebos"]["sae"]
    assert not any("placebo" in told for told in parts.warnings)


def test_codes_of_another_sae_and_too_few_are_refused(planted) -> None:
    world = planted()
    with pytest.raises(WorkbenchError, match="placebo codes"):
        decompose(world.vector, make_sae(weights_hash="c" * 64), placebos=codes())
    with pytest.raises(WorkbenchError, match="8 or more"):
        specificity(torch.ones(D_SAE), torch.ones(D_SAE), codes(n=8), trait="evil")


def test_a_placebo_without_an_error_does_not_count() -> None:
    contrasts = codes(n=12, seed=6)
    delta, errors = torch.full((D_SAE,), 0.1), torch.full((D_SAE,), 0.02)
    broken = replace(contrasts, errors=contrasts.errors.index_fill(0, torch.tensor([5]), torch.inf))
    found = specificity(delta, errors, broken)
    assert len(found.placebo_counts) == 11 and found.count == specificity(delta, errors, contrasts).count == 0


def test_rollouts_of_a_model_become_codes_that_give_the_placebo_vectors_back(tmp_path) -> None:
    """The same tokens and weights as the vectors were made from: the identity of the shares holds for every contrast."""
    model, folder = tiny_model("llama"), tmp_path / "placebos-tiny"
    design = RolloutDesign(sampling=Sampling(max_new_tokens=4), batch_size=64)
    vectors = placebo_vectors(model, folder, placebos=list_placebos()[:2], design=design)
    vectors.save(folder)
    sae = make_sae(n_features=24, d_model=32, model_name=model.name)
    found = placebo_codes(folder, model, sae)
    assert found.names == vectors.names and found.delta_codes.shape == (2, 24) and (found.errors > 0).any()
    torch.testing.assert_close(found.vectors, vectors.at(sae.hook), atol=1e-4, rtol=1e-3)
    assert found.delta_codes.abs().sum() > 0 and found.provenance["inputs"]["sae"] == sae.weights_hash

    first = codes_of_runs(folder, lambda: model, sae)

    def nobody() -> None:
        raise AssertionError("the model was asked for although the codes are kept")

    again = codes_of_runs(folder, nobody, sae)
    torch.testing.assert_close(again.delta_codes, first.delta_codes, atol=1e-2, rtol=1e-3)  # kept in 16 bits
    with pytest.raises(WorkbenchError, match="are of"):
        placebo_codes(folder, tiny_model("llama", seed=5), sae)
    with pytest.raises(WorkbenchError, match="no rollouts"):
        (folder / vectors.names[0] / "rollouts").rename(tmp_path / "gone")
        placebo_codes(folder, model, sae)
