"""What the endpoints' transport does on its own: pauses that a server asks for, keys, and giving up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from workbench.base.answers import AnswerCache
from workbench.base.errors import WorkbenchError
from workbench.models.endpoints import DIALECTS, EndpointConfig
from workbench.models.transport import Patience, _retry_after, api_key, redacted


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("WORKBENCH_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_may_say_when_to_come_back_in_seconds_or_as_a_date():
    assert _retry_after("2.5") == 2.5 and _retry_after(None) is None and _retry_after("soon") is None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    assert _retry_after(later) == pytest.approx(30, abs=3)


def test_each_dialect_takes_its_own_key_and_never_the_other_s(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    assert api_key(DIALECTS["anthropic"].keys) == "a-key" and api_key(DIALECTS["openai"].keys) is None
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", "o-key")
    assert api_key(DIALECTS["anthropic"].keys) is None and api_key(DIALECTS["openai"].keys) == "o-key"
    monkeypatch.setenv("WORKBENCH_API_KEY", "w-key")
    assert api_key(DIALECTS["anthropic"].keys) == "w-key"


def test_all_keys_are_taken_out_of_all_texts(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    monkeypatch.setenv("OPENAI_API_KEY", "o-key")
    assert redacted({"x": ["a-key!", ("o-key", 1.5)], "y": None}) == {
        "x": ["[key]!", ["[key]", 1.5]],
        "y": None,
    }


def test_each_dialect_has_its_address_and_settings_decide_it(monkeypatch):
    assert EndpointConfig(model="m", dialect="anthropic").base_url == "https://api.anthropic.com"
    for base in ("http://127.0.0.1:8", "http://127.0.0.1:8/v1", "http://127.0.0.1:8/v1/"):
        monkeypatch.setenv("WORKBENCH_BASE_URL", base)
        config = EndpointConfig.from_settings(model="m", dialect="anthropic")
        assert DIALECTS["anthropic"].address(config.base_url) == "http://127.0.0.1:8/v1/messages"
    assert DIALECTS["openai"].address("http://h/v1") == "http://h/v1/chat/completions"
    with pytest.raises(WorkbenchError, match="antropic"):
        EndpointConfig(model="m", dialect="antropic")
    with pytest.raises(WorkbenchError, match="n_attempts"):
        Patience(n_attempts=0)


def test_system_messages_stand_apart_in_the_messages_api():
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert DIALECTS["anthropic"].body(turns, 20) == {"messages": turns[1:], "system": "Be brief."}
    assert DIALECTS["openai"].body(turns, 20) == {"messages": turns, "logprobs": True, "top_logprobs": 20}


def test_an_answer_is_found_by_its_content_and_a_damaged_one_is_not_there(tmp_path: Path):
    cache = AnswerCache(tmp_path)
    assert cache.read({"a": 1, "b": 2}) is None
    cache.write({"a": 1, "b": 2}, {"score": 3})
    assert cache.read({"b": 2, "a": 1}) == {"score": 3} and cache.read({"a": 1, "b": 3}) is None
    cache.path({"a": 1, "b": 2}).write_text('{"sc')
    assert cache.read({"a": 1, "b": 2}) is None
