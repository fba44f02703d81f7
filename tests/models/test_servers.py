"""Servers that sample: what may be named, and what a reply says about its end."""

from __future__ import annotations

import pytest

from tests.personas.judges import server as http
from workbench.base.answers import AnswerCache
from workbench.base.errors import WorkbenchError
from workbench.models.endpoints import ChatEndpoint, EndpointConfig
from workbench.models.servers import ChatServer, chosen_server

HELLO = [{"role": "user", "content": "hello"}]


def test_a_server_is_an_address_and_a_model_or_nothing():
    assert chosen_server(None, None) is None and chosen_server("", "") is None
    server = chosen_server("http://127.0.0.1:8000/v1/", "m")
    assert server is not None and (server.base_url, server.model) == ("http://127.0.0.1:8000/v1", "m")
    assert server.description()["fields"]["top_k"] == -1
    with pytest.raises(WorkbenchError, match=r"--generate-with is set without --generate-model.*WORKBENCH_GENERATE_MODEL"):
        chosen_server("http://127.0.0.1:8000/v1", None)
    with pytest.raises(WorkbenchError, match="--generate-model is set without --generate-with"):
        chosen_server(None, "m")


def test_a_server_that_cannot_be_asked_is_refused():
    for url, found in {"localhost:8000": "no http", "http://me:secret@h/v1": "a password", "": "server is named"}.items():
        with pytest.raises(WorkbenchError, match=found):
            ChatServer(base_url=url, model="m")
    with pytest.raises(WorkbenchError, match="--generate-model"):
        ChatServer(base_url="http://h/v1", model="")
    for options in ({"dialect": "anthropic"}, {"n_workers": 0}):
        with pytest.raises(WorkbenchError, match="OpenAI-compatible"):
            ChatServer(base_url="http://h/v1", model="m", **options)


def test_a_reply_says_why_it_ended_and_answers_from_before_are_still_read(tmp_path):
    with http.running(lambda prompt: http.completion("hi")) as endpoint, ChatEndpoint(
        EndpointConfig(model="m", base_url=endpoint.url), tmp_path
    ) as chat:
        first = chat.chat(HELLO)
        assert first.finish_reason == "stop" and chat.chat(HELLO) == first and endpoint.seen.total() == 1
        (path,) = tmp_path.rglob("*.json")
        body = {"model": "m", "max_tokens": 8, "temperature": 0.0, "messages": HELLO}
        question = {"schema": 2, "url": f"{endpoint.url}/chat/completions", "body": body, "sample": 0}
        assert AnswerCache(tmp_path).path(question) == path, "judges find the answers that they paid for"
        AnswerCache(tmp_path).write(question, {"text": "hi", "tokens": [], "top_logprobs": []})
        old = chat.chat(HELLO)
        assert (old.text, old.finish_reason) == ("hi", None) and endpoint.seen.total() == 1


def test_an_answer_without_text_is_malformed_unless_silence_is_an_answer(tmp_path):
    silent = {"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "length"}]}
    config = {"model": "m", "n_attempts": 2, "first_wait_seconds": 0.002}
    with http.running(lambda prompt: silent) as endpoint, ChatEndpoint(
        EndpointConfig(base_url=endpoint.url, **config), tmp_path
    ) as chat:
        with pytest.raises(WorkbenchError, match="in 2 attempts"):
            chat.chat(HELLO)
        reply = chat.chat(HELLO, silence=True)
        assert (reply.text, reply.finish_reason) == ("", "length")
