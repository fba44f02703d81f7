"""The vectors side by side: what they share beside what any vectors share, and who wins where something is planted."""

from __future__ import annotations

from dataclasses import replace

import pandas
import pytest
import torch

from workbench.models.hookpoints import HookPoint
from workbench.personas.evidence import Activations
from workbench.personas.geometry import geometry, shared_null
from workbench.personas.runs import PersonaRun
from workbench.personas.vectors import PersonaVector

HOOK, WIDTH = HookPoint(1), 24
NAMES = ("evil", "humorous", "apathetic")


def draws(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(n_questions: int) -> pandas.DataFrame:
    table = [(f"q{q}", f"i{i}", arm, True) for q in range(n_questions) for i in range(4) for arm in ("positive", "negative")]
    return pandas.DataFrame(table, columns=["question_id", "instruction_id", "arm", "kept"])  # pyright: ignore


def planted(name: str, axis: torch.Tensor, seed: int) -> PersonaRun:
    """A run whose arms differ along `axis` and nowhere else, in noise."""
    parts = []
    for n_questions in (10, 6):
        frame = rows(n_questions)
        positive = torch.tensor((frame["arm"] == "positive").to_numpy())
        means = (draws(len(frame), WIDTH, seed=seed + n_questions) + positive[:, None] * axis)[:, None]
        parts.append(Activations(frame, means, means))
    vector = PersonaVector(name, {}, HOOK, (HOOK,), axis[None], None, None, None, parts[0].frame)
    return PersonaRun(vector, None, HOOK, *parts)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def runs():
    """Three traits, each along its own axis and all along a common one."""
    axes = 3 * torch.eye(WIDTH)[:3] + 3 * torch.eye(WIDTH)[10]
    return [planted(name, axis, 100 * i) for i, (name, axis) in enumerate(zip(NAMES, axes, strict=True))]


def test_orthogonal_vectors_share_one_nth_and_the_null_says_so():
    apart = [planted(name, 3 * torch.eye(WIDTH)[i], i) for i, name in enumerate(NAMES)]
    found = geometry(apart, placebo_directions=torch.eye(WIDTH)[:12]).to_json()
    for key in ("shared_share_mean", "shared_share_orthogonal", "shared_share_placebo_mean", "shared_share_placebo_mean_q95"):
        assert found[key] == pytest.approx(1 / 3), key
    assert found["cosines_without_shared"][0][1] == pytest.approx(-1 / 2)


def test_vectors_with_a_planted_common_part_share_more_than_placebos_do(runs):
    found = geometry(runs, placebo_directions=draws(20, WIDTH, seed=5))
    # <u, shared>^2 with u = (e_i + c) / sqrt 2 and shared along (e_1 + e_2 + e_3) / 3 + c: (1/3 + 1)^2 / (2 (1/3 + 1)) = 2/3.
    assert found.shared_share.tolist() == pytest.approx([2 / 3] * 3)
    assert found.to_json()["shared_share_placebo_mean_q95"] < 0.55


def test_the_null_by_inner_products_is_the_share_of_the_vectors_themselves():
    placebos = draws(4, WIDTH, seed=6)
    units = torch.nn.functional.normalize(placebos.double(), dim=1)
    found = shared_null(placebos, 4, n_sets=200)
    shares = []
    for bits in range(16):
        signed = units * torch.tensor([1.0 if bits >> i & 1 else -1.0 for i in range(4)])[:, None]
        shares.append(float((signed @ torch.nn.functional.normalize(signed.mean(dim=0), dim=0)).square().mean()))
    assert min(shares) <= found.mean <= found.mean_q95 <= max(shares) + 1e-9
    assert shared_null(placebos, 5).mean is None and shared_null(None, 5).orthogonal == 0.2


def test_its_own_vector_wins_on_rows_and_scores_where_it_is_planted(runs):
    scores = {name: (run.score.frame["arm"] == "positive").to_numpy() * 90.0 for name, run in zip(NAMES, runs, strict=True)}
    found = geometry(runs, {name: torch.from_numpy(score) for name, score in scores.items()}).to_json()
    for matrix in ("auc", "correlation", "auc_minus_shared", "correlation_minus_shared"):
        assert all(row["own_wins"] and row["own"] == row["best"] for row in found[f"own_wins_{matrix}"].values()), matrix
    # What is shared predicts everybody's rows; without it another's vector points the other way, if anywhere.
    assert found["auc"][0][1] > 0.9 and found["auc_minus_shared"][0][1] < 0.5 and found["auc_minus_shared"][1][1] > 0.9


def test_nobody_wins_a_score_that_is_not_known(runs):
    judged = {NAMES[0]: torch.full((len(runs[0].score.frame),), torch.nan)}
    found = geometry(runs, judged).to_json()
    assert set(found["own_wins_correlation"]) == set(NAMES)
    for row in found["own_wins_correlation"].values():
        assert row == {"own": None, "best": None, "best_vector": None, "own_wins": None}
    assert found["correlation"] == [[None] * 3] * 3


def test_the_shared_direction_and_what_is_left_can_be_saved_and_add_up_to_the_vectors(runs):
    found = geometry(runs)
    tensors = found.tensors()
    assert tensors["shared"].shape == (WIDTH,) and tensors["minus_shared"].shape == (3, WIDTH)
    vectors = torch.stack([run.direction for run in runs])
    along = (vectors @ tensors["shared"])[:, None] * tensors["shared"]
    torch.testing.assert_close(tensors["minus_shared"] + along, vectors)
    assert (tensors["minus_shared"] @ tensors["shared"]).abs().max() < 1e-5


def test_the_diagonal_is_read_under_instructions_that_its_vector_has_not_seen(runs):
    """A vector that is given, however bad, has no part in its own AUC: it is made again in every division."""
    spoiled = replace(runs[0], vector=replace(runs[0].vector, directions=draws(1, WIDTH, seed=9)))
    assert geometry([spoiled, *runs[1:]]).auc[0, 0] == pytest.approx(float(geometry(runs).auc[0, 0]))
