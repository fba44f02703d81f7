"""Alarm rules against values by hand; thresholds keep their rate on new replies; lead times by hand."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.personas.judges import JudgeItem, Judgement
from workbench.steering.monitor.alarms import (
    Alarm,
    NeutralReply,
    Rule,
    calibrate,
    conformal_threshold,
    false_alarms,
)
from workbench.steering.monitor.lead import TraitReply, lead_times, onsets, sentences, token_starts

NAN = math.nan


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_a_running_mean_is_over_the_last_tokens_that_count() -> None:
    path = Rule("running", 3).path(column(1, 2, NAN, 6, 9))[:, 0]
    assert path.isnan().tolist() == [True, True, False, False, False]
    assert path[2:].tolist() == [1.5, 4.0, 7.5]
    assert Rule("running", 1).path(column(1, 5, 2))[:, 0].tolist() == [1, 5, 2]


def test_a_reply_shorter_than_the_window_is_decided_at_its_end() -> None:
    alarm = Alarm("x", Rule("running", 8), 2.0, 0.05)
    assert alarm.first(torch.tensor([1.0, 4.0, 4.0])) == 3
    assert alarm.first(torch.tensor([1.0, 1.0])) is None
    assert alarm.first(torch.tensor([])) is None
    assert float(Rule("running", 8).statistics(column())) == -math.inf


def test_each_statistic_decides_where_it_says() -> None:
    values, prompt = torch.tensor([0.0, 9.0, 0.0]), torch.tensor(5.0)
    assert Alarm("x", Rule("running", 1), 8, 0.05).first(values, prompt) == 2
    assert Alarm("x", Rule("mean"), 2.9, 0.05).first(values, prompt) == 3
    assert Alarm("x", Rule("prompt"), 4, 0.05).first(values, prompt) == 0
    assert Alarm("x", Rule("prompt"), 6, 0.05).first(values, prompt) is None


@pytest.mark.parametrize(("statistic", "window"), [("largest", 8), ("running", 0)])
def test_a_rule_that_does_not_exist_is_refused(statistic: str, window: int) -> None:
    with pytest.raises(WorkbenchError):
        Rule(statistic, window)  # type: ignore[arg-type]


def test_the_threshold_keeps_its_rate_on_further_replies() -> None:
    # 59 replies at 5%: k = 3, and the 60th of exchangeable values is above the third largest of the others with chance 3 / 60.
    # One further reply per calibration, 4,000 calibrations: standard error .0034.
    draws = torch.randn(60, 4000, generator=torch.Generator().manual_seed(0)).exp()
    rate = float((draws[59] > conformal_threshold(draws[:59], 0.05)).double().mean())
    assert abs(rate - 0.05) < 0.0115
    assert float(conformal_threshold(torch.arange(99.0), 0.01)) == 98.0


def test_too_few_replies_for_a_rate_are_refused() -> None:
    with pytest.raises(WorkbenchError, match=r"98 calibration replies.*at least 99"):
        conformal_threshold(torch.arange(98.0), 0.01)
    with pytest.raises(WorkbenchError, match="rate of 1"):
        conformal_threshold(torch.arange(98.0), 1.0)


def replies(n_questions: int = 40, n: int = 20, seed: int = 0) -> list[NeutralReply]:
    random = torch.Generator().manual_seed(seed)
    return [NeutralReply(f"question {q}", torch.randn(30, 2, generator=random) + 0.2 * q / n_questions)
            for q in range(n_questions) for _ in range(n)]  # fmt: skip


def test_calibration_tells_the_rate_on_questions_that_set_no_threshold() -> None:
    rows = replies()
    alarms = calibrate(["a", "b"], rows, rule=Rule("running", 4), rate=0.05)
    assert [alarm.signal for alarm in alarms] == ["a", "b"]
    for i, alarm in enumerate(alarms):
        check = alarm.check
        assert check["n_replies"] + check["n_calibration"] == len(rows) and check["n_questions"] < 40
        assert check["interval"][0] <= check["rate"] <= check["interval"][1] and check["rate"] < 0.12
        alone = sum(alarm.first(row.values[:, i]) is not None for row in rows) / len(rows)
        assert alone == pytest.approx(0.05, abs=0.04)
    assert calibrate(["a", "b"], list(reversed(rows)), rule=Rule("running", 4), rate=0.05)[0].threshold == alarms[0].threshold


def test_replies_to_one_question_cannot_be_split() -> None:
    with pytest.raises(WorkbenchError, match="Neutral replies to 1 questions"):
        calibrate(["a", "b"], [row for row in replies() if row.question == "question 3"], rate=0.05)


def test_replies_without_any_value_set_no_threshold() -> None:
    nothing = [NeutralReply(f"question {i}", torch.full((5, 1), torch.nan)) for i in range(40)]
    with pytest.raises(WorkbenchError, match="no token with a value"):
        calibrate(["evil"], nothing, rate=0.3)


def test_no_false_alarm_has_the_exact_bound_of_its_questions() -> None:
    check = false_alarms(torch.zeros(50).double(), torch.arange(50) // 5, 60)
    assert check["rate"] == 0 and check["interval"] == [0.0, pytest.approx(1 - 0.025**0.1)]


def test_lead_times_are_counted_in_tokens_of_the_reply() -> None:
    alarm = Alarm("x", Rule("running", 1), 1.0, 0.05)

    def reply(question: str, at: int | None, onset: int | None, n: int = 20) -> TraitReply:
        values = torch.zeros(n)
        if at:
            values[at - 1 :] = 2.0
        return TraitReply(question, values, onset)

    rows = [reply("a", 5, 9), reply("a", 7, 3), reply("b", None, 4), reply("b", 10, None)]
    found = lead_times(alarm, rows)
    assert (found["n_replies"], found["n_questions"], found["n_onset"]) == (4, 2, 3)
    assert found["detected"]["value"] == 0.75
    assert found["tokens_left"]["value"] == 13  # 15, 13, 10
    assert found["before_onset"]["value"] == pytest.approx(1 / 3)
    assert found["tokens_before_onset"]["value"] == -4  # 4, -4: torch's median is the lower one
    assert lead_times(alarm, [reply("a", None, None), reply("b", None, None)])["tokens_left"] is None


class CruelWords:
    """Calls a sentence the trait when it says "hate"."""

    name = "words"

    def score(self, items: list[JudgeItem], trait: object) -> list[Judgement]:
        return [Judgement(90.0 if "hate" in item.answer else 10.0, "scored") for item in items]

    def description(self) -> dict[str, str]:
        return {"name": self.name}


def test_an_alarm_at_the_very_token_of_the_onset_does_not_come_before_it() -> None:
    alarm, values = Alarm("a", Rule("running", 1), 0.5, 0.05), torch.tensor([0.0, 1.0, 0.0])  # raised at token 2
    for onset, before in ((2, 0.0), (3, 1.0)):
        found = lead_times(alarm, [TraitReply("q", values, onset)])
        assert found["before_onset"]["value"] == before and found["tokens_before_onset"]["value"] == onset - 2


def test_the_onset_is_the_token_at_which_the_first_such_sentence_begins() -> None:
    text = "Hello there. I hate rain! Bye"
    pieces = ["Hello", " there", ".", " I", " hate", " rain", "!", " Bye"]
    starts = token_starts(lambda ids: "".join(pieces[i] for i in ids), range(len(pieces)))
    assert starts == [0, 5, 11, 12, 14, 19, 24, 25]
    assert [text[a:b] for a, b in sentences(text)] == ["Hello there. ", "I hate rain! ", "Bye"]
    assert onsets([text, "All is well."], [starts, [0, 3]], CruelWords(), "evil") == [4, None]  # type: ignore[arg-type]
