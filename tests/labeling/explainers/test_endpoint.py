"""Explainers behind endpoints that fail in every way: nothing is lost, nothing asked twice, nothing spent unasked."""

from __future__ import annotations

import json
import logging
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.features import known_evidence, known_label, number_asked, request_about, right_answer
from tests.personas.judges import server
from workbench.base.errors import WorkbenchError
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.explainers.budget import Prices, check_cost, estimate
from workbench.labeling.explainers.endpoint import EndpointExplainer
from workbench.labeling.explainers.prompt import messages_for, repair_messages
from workbench.labeling.labels import FeatureLabel

DIALECTS = ("openai", "anthropic")
KINDS = ("429", "500", "529", "malformed", "truncated", "wrong shape")
KEY = "sk-canary-5f2b9c"
PRICES = Prices(1.0, 4.0)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORKBENCH_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)


def says(dialect: str, reply: Callable[[int, bool], str] = lambda number, repair: right_answer(number)) -> Any:
    """The endpoint's answers: `reply(feature, whether it is a repair)`."""
    make = server.message if dialect == "anthropic" else server.completion
    return lambda prompt: make(reply(number_asked(prompt), prompt.endswith("\nrepair")))


def faults(prompt: str, attempt: int) -> str | None:
    dice = random.Random(f"{number_asked(prompt)} {prompt.endswith('repair')} {attempt}")
    return dice.choice(KINDS) if dice.random() < 0.3 else None


def explainer(dialect: str, url: str, folder: Path, **options: Any) -> EndpointExplainer:
    base = url.removesuffix("/v1") if dialect == "anthropic" else url
    patience = {"n_attempts": 14, "first_wait_seconds": 0.002, "max_wait_seconds": 0.02, "timeout_seconds": 20}
    return EndpointExplainer(dialect, model="m", base_url=base, cache_folder=folder, **{"n_workers": 16, **patience, **options})


N = 40
FEATURES = [known_evidence(number) for number in range(N)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_with_three_requests_in_ten_failing_nothing_is_lost_and_nothing_answered_twice(dialect: str, tmp_path: Path) -> None:
    def reply(number: int, repair: bool) -> str:
        return right_answer(number)[:20] if number % 5 == 0 and not repair else right_answer(number)

    with server.running(says(dialect, reply), faults, request_about) as endpoint:
        one = explainer(dialect, endpoint.url, tmp_path)
        said = one.explain_all(FEATURES)
        n_seen = endpoint.seen.total()
        assert [item.label for item in said] == [known_label(number) for number in range(N)]
        assert endpoint.injected.total() > 10 and set(endpoint.answered.values()) == {1}
        assert len(endpoint.answered) == N + N // 5, "one request per feature, and one repair per answer that was cut"
        assert n_seen == N + N // 5 + endpoint.injected.total()
        assert one.estimate(FEATURES).n_requests == 0
        assert one.explain_all(FEATURES) == said and endpoint.seen.total() == n_seen, "the second run asked again"
    assert dict(one.author) == {"kind": "model", "name": "m", "method": "contrastive prompt 1"}


def test_after_an_interruption_only_what_is_unanswered_is_asked(tmp_path: Path) -> None:
    main, interrupted, answer = threading.main_thread().ident, threading.Event(), says("openai")
    assert main is not None

    def answer_and_interrupt(prompt: str) -> dict[str, Any]:
        if endpoint.answered.total() == 25 and not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(main, signal.SIGINT)
        return answer(prompt)

    with server.running(answer_and_interrupt, name=request_about) as endpoint:
        one = explainer("openai", endpoint.url, tmp_path, n_workers=4)
        with pytest.raises(KeyboardInterrupt):
            one.explain_all(FEATURES)
        assert 25 <= endpoint.answered.total() < N
        said = one.explain_all(FEATURES)
        assert len(endpoint.answered) == N and set(endpoint.answered.values()) == {1}
    assert [item.label for item in said] == [known_label(number) for number in range(N)]


def test_a_request_that_is_given_up_is_told_apart_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    broken = {"from": 3}

    def failing(prompt: str, attempt: int) -> str | None:
        return "500" if number_asked(prompt) >= broken["from"] else None

    with server.running(says("openai"), failing, request_about) as endpoint:
        one = explainer("openai", endpoint.url, tmp_path, n_attempts=2)
        said = one.explain_all(FEATURES[:5])
        assert [item.answered for item in said] == [True] * 3 + [False] * 2 and said[4].label == "unclear: no answer"
        broken["from"] = 99
        again = one.explain_all(FEATURES[:5])
        assert [item.label for item in again] == [known_label(number) for number in range(5)]
        assert endpoint.seen.total() == 3 + 2 * 2 + 2


@pytest.mark.parametrize(
    ("reply", "label", "n_requests"),
    [
        ("rivers, I think", "unclear: no usable answer", 2),
        ("I'm sorry, but I can't help with that.", "unclear: the model declined", 1),
        ("", "unclear: no usable answer", 2),
        ('{"label": "x", "unclear": true}', "unclear: nothing in common", 1),
    ],
)
def test_refusals_and_nonsense_are_unclear_labels(reply: str, label: str, n_requests: int, tmp_path: Path) -> None:
    with server.running(says("openai", lambda number, repair: reply), name=request_about) as endpoint:
        said = explainer("openai", endpoint.url, tmp_path).explain(known_evidence(1))
        assert (said.label, said.unclear, said.confidence, endpoint.seen.total()) == (label, True, 0.0, n_requests)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_answer_of_another_shape_is_a_fault_and_no_answer(dialect: str, tmp_path: Path) -> None:
    with server.running(says(dialect), lambda p, a: "wrong shape" if a <= 3 else None, request_about) as endpoint:
        said = explainer(dialect, endpoint.url, tmp_path).explain(known_evidence(1))
        assert said.label == known_label(1) and endpoint.seen.total() == 4 and len(endpoint.answered) == 1


def test_a_model_that_only_thinks_is_unclear_and_not_asked_for_ever(tmp_path: Path) -> None:
    silent = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    with server.running(lambda prompt: silent, name=request_about) as endpoint:
        said = explainer("openai", endpoint.url, tmp_path).explain(known_evidence(1))
        assert said.label == "unclear: the answer was cut off" and "--max-tokens" in said.explanation
        assert endpoint.seen.total() == 1, "the same question would be cut off again"


EMPTY = {
    "nothing": ("anthropic", {"content": [], "stop_reason": "end_turn"}, "unclear: no usable answer", 2),
    "thinking alone": (
        "anthropic", {"content": [{"type": "thinking", "thinking": "hm"}], "stop_reason": "max_tokens"},
        "unclear: the answer was cut off", 1,
    ),
    "filtered": (
        "openai", {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]},
        "unclear: the model declined", 1,
    ),
    "a tool": (
        "openai", {"choices": [{"message": {"content": None}, "finish_reason": "tool_calls"}]}, "unclear: no usable answer", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", EMPTY)
def test_an_answer_without_text_is_paid_for_and_so_it_is_an_answer(kind: str, tmp_path: Path) -> None:
    """Two requests a feature at most, which is what the bound on the cost counts, and none in the next run."""
    dialect, answer, label, n_requests = EMPTY[kind]
    with server.running(lambda prompt: answer, name=request_about) as endpoint:
        one = explainer(dialect, endpoint.url, tmp_path)
        for _ in range(2):
            said = one.explain(known_evidence(1))
            assert (said.label, said.answered, endpoint.seen.total()) == (label, True, n_requests)


def test_an_answer_that_is_cut_off_behind_its_object_is_an_answer(tmp_path: Path) -> None:
    rambling = {"choices": [{"message": {"content": right_answer(1) + " and more"}, "finish_reason": "length"}]}
    with server.running(lambda prompt: rambling, name=request_about) as endpoint:
        assert explainer("openai", endpoint.url, tmp_path).explain(known_evidence(1)).label == known_label(1)


def test_an_anthropic_model_that_declines_is_asked_once(tmp_path: Path) -> None:
    with server.running(lambda prompt: {"content": [], "stop_reason": "refusal"}, name=request_about) as endpoint:
        said = explainer("anthropic", endpoint.url, tmp_path).explain(known_evidence(1))
        assert said.label == "unclear: the model declined" and endpoint.seen.total() == 1


def test_a_feature_without_contexts_is_unclear_and_nothing_is_sent(tmp_path: Path) -> None:
    withheld = known_evidence(2).without_foreign_text()
    hidden = FeatureEvidence(2, 0.1, 1.0, tuple(context.withheld() for context in withheld.top))
    with server.running(says("openai"), name=request_about) as endpoint:
        said = explainer("openai", endpoint.url, tmp_path, max_cost=0.0).explain_all([FeatureEvidence(1, 0.0, 0.0), hidden])
        assert {item.label for item in said} == {"unclear: no contexts"} and not endpoint.seen


# --------------------------------------------------------------------------------------------------------- money


def test_what_may_cost_more_than_the_bound_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with server.running(says("openai"), name=request_about) as endpoint:
        one = explainer("openai", endpoint.url, tmp_path, prices=PRICES, max_cost=0.01)
        expected = one.estimate(FEATURES)
        assert expected.most_cost is not None and expected.most_cost > 0.01
        with pytest.raises(WorkbenchError, match=r"may cost .*at most 0.01.*nothing was sent"):
            one.explain_all(FEATURES)
        unpriced = explainer("openai", endpoint.url, tmp_path, max_cost=100.0)
        with pytest.raises(WorkbenchError, match=r"no prices.*--price-in"):
            unpriced.explain_all(FEATURES)
        assert not endpoint.seen
        one.max_cost = expected.most_cost
        one.explain_all(FEATURES)
        assert endpoint.seen.total() == N


def test_the_estimate_is_logged_before_the_first_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []

    def answer(prompt: str) -> dict[str, Any]:
        told.append("requests" in caplog.text)
        return server.completion(right_answer(1))

    with caplog.at_level(logging.INFO), server.running(answer, name=request_about) as endpoint:
        explainer("openai", endpoint.url, tmp_path, prices=PRICES).explain(known_evidence(1))
    assert told == [True] and "1 requests" in caplog.text


def test_the_estimate_bounds_what_is_really_sent(tmp_path: Path) -> None:
    def reply(number: int, repair: bool) -> str:
        return "x " * 200  # 400 tokens at most, twice

    with server.running(says("openai", reply), name=request_about) as endpoint:
        one = explainer("openai", endpoint.url, tmp_path, prices=PRICES)
        found = one.estimate(FEATURES[:4])
        one.explain_all(FEATURES[:4])
        sent = sum(len(message["content"]) for body in endpoint.bodies for message in body["messages"])
        assert len(endpoint.bodies) == 8 and {body["max_tokens"] for body in endpoint.bodies} == {400}
    assert found.most_input_tokens >= sent / 4 and found.most_output_tokens == 8 * 400
    assert found.most_cost == pytest.approx((found.most_input_tokens * 1.0 + 3200 * 4.0) / 1e6)


def test_tokens_are_counted_by_a_tokenizer_where_there_is_one(tiny_models: Any) -> None:
    chats = [messages_for(known_evidence(1))]
    by_bytes = estimate(chats, n_features=3, max_tokens=100)
    exact = estimate(chats, n_features=3, max_tokens=100, tokenizer=tiny_models().tokenizer)
    n = sum(len(tiny_models().tokenizer(m["content"], add_special_tokens=False)["input_ids"]) for m in chats[0])
    assert (exact.counted_by, by_bytes.counted_by) == ("tokenizer", "characters") and exact.input_tokens == n + 16
    assert (by_bytes.n_requests, by_bytes.n_stored, by_bytes.cost) == (1, 2, None)
    assert "cost unknown" in by_bytes.sentence() and check_cost(by_bytes, None) is None


@pytest.mark.parametrize("token", ["8301947562", "\n\t\"\\", "🫠🧿", "สวัสดี", "a9Zx7Qk2"])
def test_the_bound_holds_for_a_tokenizer_that_has_a_token_for_every_byte(token: str) -> None:
    context = Context((token,) * 30, (0.0,) * 29 + (1.0,), 29, "owt", "d")
    chats = [messages_for(FeatureEvidence(1, 0.1, 1.0, (context,) * 10), [context] * 8)]
    found = estimate(chats, n_features=1, max_tokens=5000, prices=PRICES)
    said = "🫠" * 5000  # one token for each, and 2,000 of them go back
    asked = [m for chat in (chats[0], repair_messages(chats[0], said)) for m in chat if m["role"] != "assistant"]
    sent = sum(len(m["content"].encode()) for m in asked)
    assert found.most_input_tokens >= sent + min(5000, len(said[:2000].encode()))
    assert found.most_cost == pytest.approx(PRICES.cost(found.most_input_tokens, 2 * 5000))
    assert found.input_tokens < sent / 2, "what is expected stays a third"


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), float("-inf")])
def test_a_bound_that_is_no_number_is_refused(bound: float) -> None:
    found = estimate([messages_for(known_evidence(1))], n_features=1, max_tokens=100, prices=Prices(1e9, 1e9))
    with pytest.raises(WorkbenchError, match="--max-cost"):
        check_cost(found, bound)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(WorkbenchError, match="A price of"):
        Prices(price, 1.0)


# ------------------------------------------------------------------------------------------------------- secrets


def test_the_key_shows_up_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def reply(number: int, repair: bool) -> str:
        if number == 1:
            return json.dumps({"label": f"the key {KEY}", "explanation": KEY, "confidence": 0.5})
        return f"no object here, but {KEY}" if number == 2 and not repair else right_answer(number)

    with caplog.at_level(logging.DEBUG), server.running(says("openai", reply), faults, request_about) as endpoint:
        one = explainer("openai", endpoint.url, tmp_path / "cache")
        said = one.explain_all(FEATURES[:10])
        assert endpoint.keys == {f"Bearer {KEY}"} and said[1].label == "the key [key]" and said[2].label == known_label(2)
        assert not [body for body in endpoint.bodies if KEY in json.dumps(body)], "the key was sent back as somebody's words"
        made = [FeatureLabel(i, item.label, item.explanation, author=one.author) for i, item in enumerate(said)]
    with server.running(says("openai"), lambda p, a: "401", request_about) as refusing:
        with pytest.raises(WorkbenchError, match="status 401") as error:
            explainer("openai", refusing.url, tmp_path / "cache").explain(known_evidence(99))
    told = [repr(said), repr(made), repr(one.config), repr(one.description()), str(error.value), caplog.text]
    assert not [text for text in told if KEY in text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 10 and not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_settings_name_model_and_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_EXPLAINER_MODEL", "m2")
    monkeypatch.setenv("WORKBENCH_EXPLAINER_URL", "http://127.0.0.1:9/v1")
    assert EndpointExplainer("openai").description() == {"name": "openai", "model": "m2", "base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(WorkbenchError, match="no http"):
        EndpointExplainer("openai", base_url="127.0.0.1:9")
