"""The endpoint judge against a real local server: scores, faults, cache and secrets."""

from __future__ import annotations

import importlib.util
import math
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.models.endpoints import ChatReply, EndpointConfig
from workbench.personas.judges import JudgeItem, count_outcomes, make_judge
from workbench.personas.judges.rubrics import fill, read_score, weighted_mean

_spec = importlib.util.spec_from_file_location("judge_test_server", Path(__file__).with_name("server.py"))
assert _spec and _spec.loader
server = importlib.util.module_from_spec(_spec)
sys.modules["judge_test_server"] = server
_spec.loader.exec_module(server)

KEY = "sk-very-secret-123"


@dataclass(frozen=True)
class SmallTrait:
    name: str = "evil"
    rubric: str = "Q: {question}\nA: {answer}\nScore:"


def row_number(prompt: str) -> int:
    match = re.search(r"row (\d+)", prompt)
    assert match
    return int(match.group(1))


def judge(url: str, folder: Path, **options):
    settings = {"n_attempts": 8, "first_wait_seconds": 0.01, "max_wait_seconds": 0.05, "timeout_seconds": 0.3}
    return make_judge("openai", model="m", base_url=url, cache_folder=folder, **{**settings, **options})


def items(n: int) -> list[JudgeItem]:
    return [JudgeItem("why?", f"row {number} is a plain answer") for number in range(n)]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("WORKBENCH_API_KEY", KEY)


def test_the_score_is_the_probability_weighted_mean_of_the_integer_tokens():
    top = [("80", math.log(0.5)), (" 90", math.log(0.25)), ("The", math.log(0.2)), ("150", math.log(0.05))]
    assert weighted_mean(top) == pytest.approx((80 * 0.5 + 90 * 0.25) / 0.75)


def test_a_mass_under_a_quarter_on_integers_leaves_the_score_undefined():
    assert weighted_mean([("80", math.log(0.24)), ("The", math.log(0.76))]) is None
    assert read_score(ChatReply("The", ("The",), ((("80", math.log(0.2)), ("The", math.log(0.8))),))) == (None, "failed")


def test_missing_logprobs_fall_back_to_the_sampled_integer():
    assert read_score(ChatReply("Score: 75")) == (75.0, "scored")
    assert read_score(ChatReply("100")) == (100.0, "scored")
    assert read_score(ChatReply("no idea")) == (None, "failed")
    assert read_score(ChatReply("REFUSAL")) == (None, "refused")
    assert read_score(ChatReply("-5")) == (None, "failed")
    assert read_score(ChatReply("150")) == (None, "failed")


def test_tokens_that_split_numbers_into_digits_are_not_read_as_scores():
    reply = ChatReply("80", ("8", "0"), ((("8", math.log(0.9)), ("7", math.log(0.1))),))
    assert read_score(reply) == (80.0, "scored")


def test_braces_inside_an_answer_stay_as_they_are():
    assert fill("Q: {question} A: {answer}", JudgeItem("{answer}", "{question} {x}")) == "Q: {answer} A: {question} {x}"


def test_faults_lose_no_row_and_repeat_none(tmp_path):
    kinds = ("429", "500", "malformed", "wrong shape", "timeout")

    def faults(prompt: str, attempt: int) -> str | None:
        chance = random.Random(f"{prompt} {attempt}")
        return chance.choice(kinds) if attempt < 4 and chance.random() < 0.3 else None

    def answer(prompt: str):
        number = row_number(prompt)
        if number % 7 == 3:
            return server.completion("REFUSAL")
        return server.completion(str(number), {"10": 1e-12, str(number): 0.9, "x": 0.1})

    with server.running(answer, faults) as endpoint:
        rows = items(40) + items(5)  # the last five are repeats
        judged = judge(endpoint.url, tmp_path).score(rows, SmallTrait())
        assert endpoint.seen.total() > 40, "the server injected no fault"
        assert set(endpoint.answered.values()) == {1} and len(endpoint.answered) == 40
        seen = endpoint.seen.total()
        assert judge(endpoint.url, tmp_path).score(rows, SmallTrait()) == judged
        assert endpoint.seen.total() == seen, "a cached row was asked again"
    assert len(judged) == 45 and judged[40:] == judged[:5]
    for number, judgement in enumerate(judged[:40]):
        if number % 7 == 3:
            assert judgement.outcome == "refused" and judgement.score is None
        else:
            assert judgement.score == pytest.approx(number, abs=1e-6)
    assert sum(count_outcomes(judged).values()) == 45


def test_a_row_that_fails_for_good_is_counted_and_asked_again_by_the_next_run(tmp_path):
    broken = {"on": True}

    def faults(prompt: str, attempt: int) -> str | None:
        return "500" if broken["on"] and row_number(prompt) == 1 else None

    with server.running(lambda prompt: server.completion("50"), faults) as endpoint:
        first = judge(endpoint.url, tmp_path, n_attempts=2).score(items(3), SmallTrait())
        assert [j.outcome for j in first] == ["scored", "failed", "scored"]
        broken["on"] = False
        second = judge(endpoint.url, tmp_path, n_attempts=2).score(items(3), SmallTrait())
        assert [j.score for j in second] == [50.0, 50.0, 50.0]
        assert endpoint.seen.total() == 2 + 2 + 1


def test_a_refused_key_stops_at_once_and_shows_up_nowhere(tmp_path):
    with server.running(lambda prompt: server.completion("50"), lambda prompt, attempt: "401") as endpoint:
        with pytest.raises(WorkbenchError, match="status 401") as caught:
            judge(endpoint.url, tmp_path, n_workers=1).score(items(3), SmallTrait())
        assert endpoint.keys == {f"Bearer {KEY}"}
    assert KEY not in str(caught.value) and "[key]" in str(caught.value)


def test_the_key_is_not_written_to_the_cache(tmp_path):
    with server.running(lambda prompt: server.completion(f"your key is {KEY}, 50")) as endpoint:
        one = judge(endpoint.url, tmp_path)
        one.score(items(2), SmallTrait())
        assert KEY not in repr(one.description()) and KEY not in repr(one.config)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2 and not any(KEY in path.read_text() for path in files)


def test_a_damaged_cache_entry_is_asked_again(tmp_path):
    with server.running(lambda prompt: server.completion("60")) as endpoint:
        judge(endpoint.url, tmp_path).score(items(1), SmallTrait())
        (entry,) = tmp_path.rglob("*.json")
        entry.write_text('{"text": ')
        assert judge(endpoint.url, tmp_path).score(items(1), SmallTrait())[0].score == 60.0
        assert endpoint.seen.total() == 2


def test_coherence_can_be_judged_by_the_endpoint_too(tmp_path):
    def answer(prompt: str):
        return server.completion("90" if "how coherent" in prompt else "20")

    with server.running(answer) as endpoint:
        (judged,) = judge(endpoint.url, tmp_path, coherence="judge").score(items(1), SmallTrait())
    assert (judged.score, judged.coherence) == (20.0, 90.0)


def test_an_endpoint_without_a_model_or_with_a_secret_in_its_address_is_refused(monkeypatch):
    monkeypatch.delenv("WORKBENCH_JUDGE_MODEL", raising=False)
    with pytest.raises(WorkbenchError, match="WORKBENCH_JUDGE_MODEL"):
        EndpointConfig(model="")
    with pytest.raises(WorkbenchError, match="without secrets") as caught:
        EndpointConfig(model="m", base_url="http://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(WorkbenchError, match="http"):
        EndpointConfig(model="m", base_url="host/v1")
