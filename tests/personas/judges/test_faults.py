"""Endpoints that fail in every way, in both dialects: no row is lost, none is asked twice, and all are counted."""

from __future__ import annotations

import importlib.util
import random
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import pytest

from workbench.personas.judges import count_outcomes, make_judge
from workbench.personas.judging import counts_by_arm, judge_rows

_spec = importlib.util.spec_from_file_location("judge_test_server", Path(__file__).with_name("server.py"))
assert _spec and _spec.loader
server = importlib.util.module_from_spec(_spec)
sys.modules["judge_test_server"] = server
_spec.loader.exec_module(server)

DIALECTS = ("openai", "anthropic")
KINDS = ("429", "500", "529", "timeout", "malformed", "truncated", "wrong shape")
RATE = 0.3
N_ROWS = 200
KEY = "sk-very-secret-123"


@dataclass(frozen=True)
class SmallTrait:
    name: str = "evil"
    rubric: str = "Q: {question}\nA: {answer}\nScore:"


TRAIT: Any = SmallTrait()


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    monkeypatch.setenv("WORKBENCH_API_KEY", KEY)


def number_of(prompt: str) -> int:
    match = re.search(r"row (\d+)", prompt)
    assert match
    return int(match.group(1))


def text_of(number: int) -> str:
    return "REFUSAL" if number % 10 == 3 else str(number % 101)


def answers(dialect: str) -> Callable[[str], dict[str, Any]]:
    make = server.message if dialect == "anthropic" else server.completion
    return lambda prompt: make(text_of(number_of(prompt)))


def seeded_faults(kinds: tuple[str, ...], rate: float = RATE) -> Callable[[str, int], str | None]:
    def faults(prompt: str, attempt: int) -> str | None:
        dice = random.Random(f"{kinds} {number_of(prompt)} {attempt}")
        kind = dice.choice(kinds) if dice.random() < rate else None
        # Waiting is dear: long enough that a busy machine is no time-out of its own, hence one of them per row.
        return None if kind == "timeout" and attempt > 1 else kind

    return faults


def judge(dialect: str, url: str, folder: Path, **options: Any):
    base = url.removesuffix("/v1") if dialect == "anthropic" else url
    patience = {
        "n_attempts": 14,
        "first_wait_seconds": 0.002,
        "max_wait_seconds": 0.02,
        "timeout_seconds": 20,
    }
    return make_judge(
        dialect, model="m", base_url=base, cache_folder=folder, **{"n_workers": 32, **patience, **options}
    )


def rollouts(n: int = N_ROWS) -> pandas.DataFrame:
    arms = ["positive", "negative"] * (n // 2)
    texts = [f"row {number} is a plain answer of a few words" for number in range(n)]
    return pandas.DataFrame({"arm": arms, "question": "why?", "response": texts, "n_tokens": 9, "n_sinks": 0})


def right(judged: pandas.DataFrame) -> bool:
    """Whether each row has its own score or refusal."""
    wanted = [text_of(number) for number in range(len(judged))]
    got = ["REFUSAL" if row.outcome == "refused" else str(int(row.score)) for row in judged.itertuples()]
    return got == wanted


def n_counted(judged: pandas.DataFrame) -> int:
    """The sum of what became of the rows, over arms and outcomes (each row is in one class of its arm)."""
    return sum(sum(counts.values()) - counts["rows"] for counts in counts_by_arm(judged).values())


ALONE = tuple(kind for kind in KINDS if kind != "timeout")  # those take seconds each, and are among all


@pytest.mark.parametrize("kinds", [*((kind,) for kind in ALONE), KINDS], ids=[*ALONE, "all mixed"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_row_is_lost_and_none_repeated(dialect, kinds, tmp_path):
    patience = {"timeout_seconds": 3.5, "n_workers": 100} if "timeout" in kinds else {}
    with server.running(answers(dialect), seeded_faults(kinds)) as endpoint:
        endpoint.hang_seconds = 4.0
        one = judge(dialect, endpoint.url, tmp_path, **patience)
        judged = judge_rows(rollouts(), TRAIT, one)
        n_seen = endpoint.seen.total()
        assert endpoint.injected.total() > 50 and set(endpoint.injected) == set(kinds)
        assert len(endpoint.answered) == N_ROWS and set(endpoint.answered.values()) == {1}
        assert n_seen == N_ROWS + endpoint.injected.total()
        assert judge_rows(rollouts(), TRAIT, one).equals(judged)
        assert endpoint.seen.total() == n_seen, "the second run asked again"
    assert right(judged) and len(judged) == N_ROWS
    assert n_counted(judged) == N_ROWS and judged["outcome"].value_counts().to_dict() == {
        "scored": 180,
        "refused": 20,
    }


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_endpoint_that_always_fails_leaves_rows_failed_and_a_healthy_one_fills_only_these(
    dialect, tmp_path
):
    broken = {"from": 40}
    faults = seeded_faults(("429", "500", "malformed", "truncated"), rate=1.0)
    with server.running(
        answers(dialect), lambda p, a: faults(p, a) if number_of(p) >= broken["from"] else None
    ) as endpoint:
        one = judge(dialect, endpoint.url, tmp_path, n_attempts=2)
        judged = judge_rows(rollouts(), TRAIT, one)
        assert (judged["outcome"][40:] == "failed").all() and judged["score"][40:].isna().all()
        assert n_counted(judged) == N_ROWS and sum(c["failed"] for c in counts_by_arm(judged).values()) == 160
        assert endpoint.injected.total() == 2 * 160
        broken["from"] = N_ROWS
        filled = judge_rows(rollouts(), TRAIT, one)
        assert right(filled) and endpoint.seen.total() == 40 + 2 * 160 + 160
        assert set(endpoint.answered.values()) == {1} and len(endpoint.answered) == N_ROWS


@pytest.mark.parametrize("dialect", DIALECTS)
def test_after_an_interruption_only_the_unanswered_rows_are_asked(dialect, tmp_path):
    main, interrupted = threading.main_thread().ident, threading.Event()
    assert main is not None
    answer = answers(dialect)

    def answer_and_interrupt(prompt: str) -> dict[str, Any]:
        if endpoint.answered.total() == 90 and not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(main, signal.SIGINT)
        return answer(prompt)

    with server.running(answer_and_interrupt, seeded_faults(("429", "500"))) as endpoint:
        one = judge(dialect, endpoint.url, tmp_path)
        with pytest.raises(KeyboardInterrupt):
            judge_rows(rollouts(), TRAIT, one)
        assert 90 <= endpoint.answered.total() < N_ROWS
        judged = judge_rows(rollouts(), TRAIT, one)
        assert len(endpoint.answered) == N_ROWS and set(endpoint.answered.values()) == {1}
    assert right(judged) and n_counted(judged) == N_ROWS


def test_the_messages_api_is_spoken_as_it_asks_and_the_key_stays_in_its_header(tmp_path):
    with server.running(answers("anthropic")) as endpoint:
        one = judge("anthropic", endpoint.url, tmp_path)
        (judgement,) = one.score([server_item(7)], TRAIT)
        (headers,) = endpoint.headers
    assert judgement.score == 7.0
    assert (
        headers["x-api-key"] == KEY
        and headers["anthropic-version"] == "2023-06-01"
        and "authorization" not in headers
    )
    assert KEY not in repr(one.description()) + repr(one.config) + "".join(
        p.read_text() for p in tmp_path.rglob("*.json")
    )


def test_a_model_that_declines_to_judge_is_a_failure_and_not_asked_again(tmp_path):
    silent = {"type": "message", "content": [], "stop_reason": "refusal"}
    with server.running(lambda prompt: silent) as endpoint:
        for _ in range(2):
            judged = judge("anthropic", endpoint.url, tmp_path).score([server_item(1)], TRAIT)
            assert count_outcomes(judged) == {"scored": 0, "refused": 0, "failed": 1, "unjudged": 0}
        assert endpoint.seen.total() == 1


def server_item(number: int):
    from workbench.personas.judges import JudgeItem

    return JudgeItem("why?", f"row {number} is a plain answer")
