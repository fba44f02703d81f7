"""The gateway through a real HTTP client: the API's shapes, what the monitor adds, caps, refusals, and a reader who leaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.tiny import n_hooks, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.cli.gateway import _caps, _key, cap_edits
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector
from workbench.serving.explorer import Limits
from workbench.serving.gateway import ChatRequest, Gateway, make_gateway
from workbench.serving.server import access_for, open_socket, server_of
from workbench.steering.monitor.alarms import Alarm, Rule
from workbench.steering.monitor.logs import JsonLines
from workbench.steering.monitor.monitor import Monitor

ASK = {"model": "any", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 8, "seed": 3, "user": "ignored"}


@contextmanager
def served(gateway: Gateway) -> Iterator[httpx.Client]:
    made = open_socket("127.0.0.1", 0)
    access, ready = access_for(made, "127.0.0.1"), threading.Event()
    server = server_of(make_gateway(gateway, access), ready=ready.set)
    thread = threading.Thread(target=lambda: server.run(sockets=[made]), daemon=True)
    thread.start()
    assert ready.wait(20)
    key = {"authorization": f"Bearer {access.token}"}
    with httpx.Client(base_url=f"{access.address}/v1", headers=key, timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join(20)
    made.close()


@pytest.fixture(scope="module")
def world() -> tuple[Any, Monitor]:
    model = tiny_model(seed=5)
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    vector = PersonaVector.from_direction(direction, trait="evil", model=model.description(), hook=HookPoint(1))
    return model, Monitor.of(model, [vector]).with_alarms([Alarm("evil", Rule("running", 2), -1e6, 0.05)])


@pytest.fixture(scope="module")
def client(world: tuple[Any, Monitor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("log") / "gateway.jsonl"
    with JsonLines(path, world[1]) as log, served(Gateway(*world, log=log, limits=Limits(max_new_tokens=12))) as made:
        made.headers["x-log"] = str(path)
        yield made


def events(client: httpx.Client, **more: Any) -> list[dict[str, Any]]:
    with client.stream("POST", "/chat/completions", json={**ASK, "stream": True, **more}) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_has_the_shape_of_the_api_and_what_the_monitor_saw(client: httpx.Client, world: tuple[Any, Monitor]) -> None:
    answer = client.post("/chat/completions", json=ASK)
    assert answer.status_code == 200, answer.text
    value = answer.json()
    assert value["object"] == "chat.completion" and value["choices"][0]["message"]["role"] == "assistant"
    assert value["usage"]["completion_tokens"] == 8 and value["choices"][0]["finish_reason"] == "length"
    reply = value["workbench"]["reply"]
    assert reply["alarms"][0]["signal"] == "evil" and reply["alarms"][0]["position"] == 2 and reply["n_tokens"] == 7
    assert json.loads(answer.headers["x-workbench-alarms"]) == ["evil"]
    assert json.loads(answer.headers["x-workbench-norms"]) == reply["norms"]
    line = json.loads(Path(client.headers["x-log"]).read_text().splitlines()[-1])
    assert line["kind"] == "reply" and line["values"] == reply["values"] and "text" not in line
    models = client.get("/models").json()["data"]
    assert [one["id"] for one in models] == [world[0].name]


def test_a_stream_says_the_same_in_pieces_with_tokens_and_alarms(client: httpx.Client) -> None:
    whole = client.post("/chat/completions", json=ASK).json()
    pieces = events(client)
    said = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)
    assert said == whole["choices"][0]["message"]["content"]
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant" and pieces[-1]["choices"][0]["finish_reason"] == "length"
    assert pieces[-1]["workbench"]["reply"] == whole["workbench"]["reply"] and pieces[-1]["usage"] == whole["usage"]
    tokens = [token for piece in pieces for token in piece["workbench"].get("tokens", [])]
    assert [token["position"] for token in tokens] == list(range(8))
    alarms = [alarm for piece in pieces for alarm in piece["workbench"].get("alarms", [])]
    assert alarms == [{"signal": "evil", "position": 2}]


def test_a_cap_changes_the_answer_and_the_monitor_sees_what_came_before_it(world: tuple[Any, Monitor]) -> None:
    model, monitor = world
    edits = cap_edits(monitor, {"evil": -0.5})
    with served(Gateway(model, monitor, edits)) as capped, served(Gateway(model, monitor)) as plain:
        first, second = (one.post("/chat/completions", json=ASK).json() for one in (capped, plain))
    assert first["choices"][0]["message"]["content"] != second["choices"][0]["message"]["content"]
    limit = -0.5 * monitor.norms[HookPoint(1)]
    assert first["workbench"]["reply"]["prompt"]["evil"] == second["workbench"]["reply"]["prompt"]["evil"] > limit
    assert first["workbench"]["capped"][0]["kind"] == "cap" and second["workbench"]["capped"] == []
    with served(Gateway(model, monitor, cap_edits(monitor, {"evil": 1e6}))) as loose:
        assert loose.post("/chat/completions", json=ASK).json()["choices"] == second["choices"]


@pytest.mark.parametrize(("more", "told"), [
    ({"messages": []}, "messages"), ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"), ({"n": 2}, "n:"),
    ({"messages": [{"role": "system", "content": "x"}]}, "nobody speaks"), ({"stop": ["a"]}, "stop"), ({"tools": [{}]}, "tools"),
    ({"messages": [{"role": "user", "content": "a " * 5000}]}, "A conversation of"), ({"temperature": -1}, "temperature"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_what_is_not_offered_is_refused_in_the_apis_form(client: httpx.Client, more: dict[str, Any], told: str) -> None:
    answer = client.post("/chat/completions", json={**ASK, **more})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert told in error["message"] and error["type"] == "invalid_request_error"


def test_nobody_asks_without_the_key_or_from_a_page(client: httpx.Client) -> None:
    url = f"{client.base_url}chat/completions"
    for headers in ({}, {"authorization": "Bearer wrong"}):
        assert httpx.post(url, json=ASK, headers=headers).status_code in (401, 403)
    assert client.post("/chat/completions", json=ASK, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/chat/completions", json=ASK, headers={"host": "evil.example"}).status_code == 403
    assert client.get("/nowhere").status_code == 404


def test_a_reader_who_leaves_ends_the_work(world: tuple[Any, Monitor]) -> None:
    model, monitor = world
    before, gateway = n_hooks(model), Gateway(model, monitor, limits=Limits(max_new_tokens=400))
    with served(gateway) as client:
        with client.stream("POST", "/chat/completions", json={**ASK, "stream": True, "max_tokens": 400}) as answer:
            next(answer.iter_lines())
        value = client.post("/chat/completions", json=ASK)  # waits for its turn, which comes when the other's work has ended
        assert value.status_code == 200
    assert gateway.turns.n_inside == 0 and n_hooks(model) == before


def test_an_answer_that_is_cut_off_is_told_and_logged_as_far_as_it_came(world: tuple[Any, Monitor], tmp_path: Path) -> None:
    with JsonLines(tmp_path / "log.jsonl", world[1]) as log:
        with served(Gateway(*world, log=log, limits=Limits(max_new_tokens=400, max_seconds=0.05))) as client:
            cut = client.post("/chat/completions", json={**ASK, "max_tokens": 400})
        reply = cut.json()["workbench"]["reply"]  # how far it came depends on the machine
        assert reply["n_tokens"] < 399 and cut.headers["x-workbench-norms"] == json.dumps(reply["norms"])
        gateway = Gateway(*world, log=log, limits=Limits(max_new_tokens=400))
        request = ChatRequest(**{**ASK, "max_tokens": 400})
        steps: Any = gateway.steps(request, gateway.prompt(request), [])
        for _ in range(6):
            next(steps)
        steps.close()  # the reader went away
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["reply", "reply"] and lines[1]["n_tokens"] == 5 and lines[1]["alarms"]


def test_a_monitor_of_another_model_and_caps_that_mean_nothing_are_refused(world: tuple[Any, Monitor], monkeypatch: Any) -> None:
    with pytest.raises(WorkbenchError, match="The monitor is of"):
        Gateway(tiny_model(seed=6), world[1])
    with pytest.raises(WorkbenchError, match="signal"):
        cap_edits(world[1], {"kind": 1.0})
    for text in ("evil", "evil=", "evil=nan", "=1"):
        with pytest.raises(WorkbenchError, match="a vector's name and a number"):
            _caps([text])
    assert _caps(["evil=0.5", "a=b=-1"]) == {"evil": 0.5, "a=b": -1.0}
    monkeypatch.setenv("WORKBENCH_GATEWAY_TOKEN", "short")
    with pytest.raises(WorkbenchError, match="32 characters or more"):
        _key()
