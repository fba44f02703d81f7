"""Detectors on planted replies: what carries the trait is found, what does not is not; the same for a reader and for displays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from workbench.personas.separability import Rows
from workbench.steering.monitor.detection import Examples, best_features, detection
from workbench.steering.monitor.surrogate import Reader, reader_direction, surrogate

D, F, N_INSTRUCTIONS = 24, 60, 4
TRAIT, FEATURE = 3, 17


def planted(n_questions: int, seed: int, *, shift: float = 2.0) -> Examples:
    """Replies whose persona moves coordinate TRAIT, and feature FEATURE with it; the judge sees the arm with some noise."""
    random = torch.Generator().manual_seed(seed)
    grid = [(q, i, arm) for q in range(n_questions) for i in range(N_INSTRUCTIONS) for arm in (True, False)]
    question, instruction, positive = (torch.tensor(column) for column in zip(*grid, strict=True))
    means = torch.randn(len(grid), D, generator=random)
    means[:, TRAIT] += shift * positive
    codes = torch.randn(len(grid), F, generator=random).relu()
    codes[:, FEATURE] = (codes[:, FEATURE] + shift * positive * torch.rand(len(grid), generator=random)).relu()
    label = (positive.float() + 0.6 * torch.randn(len(grid), generator=random) > 0.5).double()
    label[::11] = torch.nan
    rows = Rows(question, instruction, positive, torch.ones(len(grid)))
    texts = [" ".join(f"word{int(w)}" for w in torch.randint(50, (8,), generator=random)) for _ in grid]
    lengths = torch.randint(20, 60, (len(grid),), generator=random)
    return Examples(rows, means, codes, texts, lengths, label)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return detection(planted(12, 0), planted(8, 1), N_INSTRUCTIONS, placebos=torch.eye(D)[10:20])


def test_the_vector_and_the_feature_that_carry_the_trait_are_found(found: dict[str, Any]) -> None:
    arm = found["arm"]
    # A shift of 2 standard deviations along one coordinate: AUROC = Phi(2 / sqrt 2) = .921 for a perfect direction.
    assert arm["detectors"]["vector"]["auroc"] == pytest.approx(0.90, abs=0.06)
    assert set(arm["features"]) == {FEATURE} and arm["detectors"]["feature"]["auroc"] > 0.75
    assert arm["detectors"]["probe"]["auroc"] > 0.75 and max(arm["probe"]["n_features"]) < F
    assert arm["n_rows"] == 64 and arm["n_questions"] == 8 and arm["share"] == 0.5
    for one in arm["detectors"].values():
        assert one["interval"][0] <= one["auroc"] <= one["interval"][1]
    assert arm["detectors"]["vector"]["minus_vector"] == 0


def test_what_does_not_carry_the_trait_looks_unremarkable(found: dict[str, Any]) -> None:
    arm = found["arm"]
    assert arm["detectors"]["vector"]["auroc"] > max(arm["random_q95"], arm["placebo_q95"]) > 0.5
    for name in ("text", "length"):
        low, high = arm["detectors"][name]["interval"]
        assert low < 0.62 and high > 0.4
        assert arm["detectors"][name]["minus_vector_interval"][1] < 0


def test_shuffled_arms_give_no_detection() -> None:
    made, scored = planted(12, 2, shift=0.0), planted(8, 3, shift=0.0)
    null = detection(made, scored, N_INSTRUCTIONS)
    # 64 replies of 8 questions: the standard error of an AUROC under the null is sqrt(65 / (12 * 32 * 32)) = .073.
    assert abs(null["arm"]["detectors"]["vector"]["auroc"] - 0.5) < 0.22
    assert null["arm"]["placebo_q95"] is None


def test_rows_that_the_judge_left_out_count_nowhere(found: dict[str, Any]) -> None:
    score = planted(8, 1)
    assert found["judge"]["n_rows"] == int(score.label.isfinite().sum())
    assert found["judge"]["detectors"]["vector"]["auroc"] > 0.6


def test_the_best_features_come_with_their_sign() -> None:
    codes, targets = torch.rand(40, 5), torch.arange(40) % 2 == 0
    codes[:, 2] = 1.0 - 0.9 * targets
    codes[:, 4] = 0.1 + 0.5 * targets + 0.45 * torch.rand(40)
    assert sorted(best_features(codes, targets, 2)) == [(2, -1), (4, 1)]


def test_a_reader_sees_what_its_own_vector_carries() -> None:
    made, scored = planted(12, 4), planted(8, 5)
    own = planted(10, 6)
    rotation = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(7)))[0]
    reader = Reader(own.rows, own.means @ rotation, scored.means @ rotation)  # another model: the same content in other axes
    result = surrogate(made, scored, scored.means + 3.0, reader, N_INSTRUCTIONS)
    detectors = result["arm"]["detectors"]
    assert detectors["reader"]["auroc"] > 0.8 and detectors["reader"]["minus_own_interval"][0] < 0.05
    assert detectors["own_without_system"]["auroc"] == pytest.approx(detectors["own"]["auroc"])  # a shift of all rows is none
    assert detectors["text"]["auroc"] < 0.7
    direction = reader_direction(reader, torch.tensor([0, 1]))
    inside = own.rows.instruction < 2
    wanted = (own.means[inside & own.rows.positive].mean(0) - own.means[inside & ~own.rows.positive].mean(0)) @ rotation
    torch.testing.assert_close(direction.float(), wanted, atol=1e-5, rtol=1e-4)


def test_values_show_themselves_with_a_drawing_and_escaped_names() -> None:
    from tests.tiny import tiny_model
    from workbench.models.hookpoints import HookPoint
    from workbench.models.prompts import tokenize_chat
    from workbench.models.sampling import Sampling
    from workbench.personas.vectors import PersonaVector
    from workbench.reports.steering.monitor import reply_figure
    from workbench.steering.monitor.alarms import Alarm, Rule
    from workbench.steering.monitor.monitor import Monitor
    from workbench.steering.monitor.streaming import watched_stream
    from workbench.steering.monitor.transcripts import read_transcript
    from workbench.steering.monitor.watching import WatchedReply, watching

    model, name = tiny_model(), "<b>evil</b>"
    vector = PersonaVector.from_direction(torch.ones(model.d_model), trait=name, model=model.description(), hook=HookPoint(1))
    norm = float(model.norm_medians([HookPoint(1)])[0])
    alarm = Alarm(name, Rule("running", 1), 0.5 * norm, 0.05, {"rate": 0.04, "interval": [0.01, 0.08]})
    monitor = Monitor.of(model, [vector]).with_alarms([alarm])
    values = norm * torch.tensor([[0.1], [float("nan")], [0.2], [0.75], [0.3]])
    reply = WatchedReply(monitor, 0, 0, values[0], values)
    figure = reply_figure(reply, tokens=["a", "b", "c", "d", "e"])
    assert "5 tokens" in repr(figure) and "at token 4 (d)" in repr(figure) and "<b>" not in figure.svg
    assert figure.svg.count("M") >= 2 and 'class="wbf-mark"' in figure.svg  # the pen is lifted at the sink
    for value in (monitor, reply, read_transcript(model, monitor, [{"role": "user", "content": "Hello."}])):
        html = value._repr_html_()
        assert html and "&lt;b&gt;evil" in html and "<b>evil" not in html
    assert "token 4 of the reply" in str(reply.alarms()[0]._repr_html_()) and "4.0%" in str(reply.alarms()[0]._repr_html_())
    chat = tokenize_chat(model, [{"role": "user", "content": "Hello."}], add_generation_prompt=True)
    step = list(watched_stream(model, monitor, [chat], Sampling(max_new_tokens=2), row_seeds=[1]))[-1]
    assert "said so far" in str(step._repr_html_())
    with watching(monitor, model) as log:
        model.forward(torch.tensor([[1, 2, 3]]))
    assert "1 reply watched" in str(log._repr_html_())
