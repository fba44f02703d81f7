"""What the endpoints' transport does on its own: pauses that a server asks for, keys, and giving up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.personas.judges import server
from workbench.base.answers import AnswerCache
from workbench.base.errors import WorkbenchError
from workbench.models.endpoints import DIALECTS, ChatEndpoint, EndpointConfig
from workbench.models.transport import Patience, _retry_after, api_key, redacted


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("WORKBENCH_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_may_say_when_to_come_back_in_seconds_or_as_a_date():
    assert _retry_after("2.5") == 2.5 and _retry_after(None) is None and _retry_after("soon") is None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    assert _retry_after(later) == pytest.approx(30, abs=3)


def key_for(dialect: str, base_url: str = "") -> str | None:
    return api_key(EndpointConfig(model="m", dialect=dialect, base_url=base_url).keys)


def test_each_provider_gets_its_own_key_and_never_the_other_s(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    assert key_for("anthropic") == "a-key" and key_for("openai") is None
    monkeypatch.setenv("OPENAI_API_KEY", "o-key")
    monkeypatch.setenv("WORKBENCH_API_KEY", "w-key")
    assert key_for("anthropic") == key_for("anthropic", "https://api.anthropic.com/v1/") == "a-key"
    assert key_for("openai") == key_for("openai", "https://api.openai.com/v1/") == "o-key"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert key_for("openai") == "w-key"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_provider_s_key_goes_to_any_other_address(dialect, monkeypatch):
    elsewhere = [
        "http://127.0.0.1:8000/v1", "https://api.openai.com.evil.example/v1", "https://evil.example/api.openai.com/v1",
        "http://api.openai.com/v1", "http://api.anthropic.com", "https://api.openai.com:8443/v1", "https://api.anthropic.com/v2",
    ]  # fmt: skip
    for variable, key in (("OPENAI_API_KEY", "o-key"), ("ANTHROPIC_API_KEY", "a-key")):
        monkeypatch.setenv(variable, key)
    assert [key_for(dialect, url) for url in elsewhere] == [None] * len(elsewhere)
    monkeypatch.setenv("WORKBENCH_API_KEY", "w-key")
    assert [key_for(dialect, url) for url in elsewhere] == ["w-key"] * len(elsewhere)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_server_that_is_no_provider_never_sees_a_provider_s_key(dialect, tmp_path, monkeypatch):
    for variable, key in (("OPENAI_API_KEY", "o-key"), ("ANTHROPIC_API_KEY", "a-key")):
        monkeypatch.setenv(variable, key)
    with server.running(server.completion, lambda prompt, attempt: "401") as endpoint:
        base = endpoint.url.removesuffix("/v1") if dialect == "anthropic" else endpoint.url
        config = EndpointConfig(model="m", dialect=dialect, base_url=base)
        with ChatEndpoint(config, tmp_path) as client, pytest.raises(WorkbenchError) as caught:
            client.chat([{"role": "user", "content": "Hi"}])
        (headers,) = endpoint.headers
    assert not {"authorization", "x-api-key"} & {name.lower() for name in headers}
    assert "Check the key in WORKBENCH_API_KEY (the keys of providers are sent to the providers' own" in str(caught.value)


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


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_key_that_the_server_sends_back_is_taken_out_before_its_words_are_cut(dialect, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_API_KEY", "sk-canary-0123456789-0123456789")
    with server.running(lambda prompt: {}, lambda prompt, attempt: "refused") as endpoint:
        config = EndpointConfig(model="m", dialect=dialect, base_url=endpoint.url)
        with ChatEndpoint(config, tmp_path) as chat, pytest.raises(WorkbenchError, match="status 400") as error:
            chat.chat([{"role": "user", "content": "hello"}])
    assert "sk-" not in str(error.value) and "[key]" in str(error.value)
