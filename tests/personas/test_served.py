"""Rollouts that a chat server samples: as complete, as resumable and as exactly read as those sampled here."""

from __future__ import annotations

import json
import random
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.personas.judges import server as http
from tests.tiny import QWEN3, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.models.capture import capture
from workbench.models.generation import Sampling
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import chat_template_hash, with_response
from workbench.models.servers import ChatServer
from workbench.personas.extraction import extract
from workbench.personas.given import capture_responses
from workbench.personas.judging import usable_mask
from workbench.personas.placebos import list_placebos, placebo_vectors
from workbench.personas.reencoding import prompt_tokens
from workbench.personas.rollouts import RolloutDesign, collect_rollouts, plan_rows
from workbench.personas.served import SEEDS
from workbench.personas.traits import load_trait

SAMPLING = Sampling(max_new_tokens=24, temperature=0.7, top_p=0.9)
DESIGN = RolloutDesign(sampling=SAMPLING, n_samples=2, n_extraction=4, n_evaluation=2, n_instructions=2, batch_size=8)
HOOKS, TOKENS = (HookPoint(0), HookPoint(2)), (HookPoint(1),)
KINDS = ("429", "500", "529", "malformed", "truncated", "wrong shape")
WORDS = ("the", "people", "of", "town", "should", "happy", "help", ",", "rivers", "cold", "naïve", "façade", "你好", "🙂")
KEY = "sk-very-secret-123"


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_API_KEY", KEY)


@pytest.fixture(scope="module")
def evil():
    return load_trait("evil")


def text_of(request: str) -> str:
    dice = random.Random(request)
    return " ".join(dice.choices(WORDS, k=dice.randint(1, 12)))


def answer(request: str) -> dict:
    return http.completion(text_of(request))


def serving(answer=answer, faults=lambda request, attempt: None):
    """The test server, where each different request counts as a prompt of its own."""
    return http.running(answer, faults, name=lambda body: json.dumps(body, sort_keys=True))


def collect(trait, model, folder, url, **options):
    patience = {"n_attempts": 14, "first_wait_seconds": 0.002, "max_wait_seconds": 0.02}
    server = ChatServer(base_url=url, model="served", **{**patience, **options})
    return collect_rollouts(trait, model, folder, design=DESIGN, hooks=HOOKS, token_hooks=TOKENS, server=server)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("part-*"))}


def test_served_rows_are_read_as_the_model_reads_the_same_texts(evil, tiny_model, tmp_path):
    with serving() as endpoint:
        served = collect(evil, tiny_model, tmp_path / "served", endpoint.url)
    frame = served.frame()
    assert len(frame) == 2 * (4 * 2 * 3 + 2 * 2 * 2) == len(set(frame["id"])) == endpoint.answered.total()
    assert frame["finished"].all() and (frame["n_tokens"] > 0).all()
    decoded = [tiny_model.tokenizer.decode(ids) for ids in frame["response_ids"]]
    assert decoded == frame["response"].tolist()
    for row, means in zip(frame.to_dict("records"), served.means(), strict=True):
        chat = with_response(prompt_tokens(tiny_model, row["system"], row["question"]), row["response_ids"])
        ((_, (alone,)),) = capture(tiny_model, [chat], HOOKS)
        assert torch.allclose(alone.means, means, atol=1e-5)
    given = capture_responses(frame, evil, tiny_model, tmp_path / "given", hooks=HOOKS, token_hooks=TOKENS)
    same = {(r.system, r.question, r.response): mean for r, mean in zip(given.frame().itertuples(), given.means(), strict=True)}
    for row, means in zip(frame.itertuples(), served.means(), strict=True):
        assert torch.allclose(same[row.system, row.question, row.response], means, atol=1e-5)
    lengths = {row_id: len(tokens) for row_id, tokens in served.tokens(TOKENS[0])}
    extraction = frame[frame["split"] == "extraction"]
    assert lengths == dict(zip(extraction["id"], extraction["n_tokens"] - extraction["n_sinks"], strict=True))


def test_every_request_says_how_to_sample_and_samples_are_requests_of_their_own(evil, tiny_model, tmp_path):
    with serving() as endpoint:
        served = collect(evil, tiny_model, tmp_path / "run", endpoint.url)
    bodies = {(b["messages"][0]["content"], b["messages"][1]["content"], b["seed"]): b for b in endpoint.bodies}
    assert len(bodies) == len(endpoint.bodies) == len(served)
    for row in served.frame().itertuples():
        body = bodies[row.system, row.question, row.seed % SEEDS]
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("served", 24, 0.7, 0.9)
        assert (body["top_k"], body["min_p"]) == (-1, 0.0) and "chat_template_kwargs" not in body
    assert endpoint.keys == {f"Bearer {KEY}"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_faults_lose_no_row_and_repeat_none(evil, tiny_model, tmp_path):
    def faults(request: str, attempt: int) -> str | None:
        dice = random.Random(f"{request} {attempt}")
        return dice.choice(KINDS) if dice.random() < 0.3 else None

    with serving(faults=faults) as endpoint:
        served = collect(evil, tiny_model, tmp_path / "run", endpoint.url)
        assert len(endpoint.answered) == len(served) == 64 and set(endpoint.answered.values()) == {1}
        assert endpoint.injected.total() > 10 and len(endpoint.injected) > 3
        assert endpoint.seen.total() == 64 + endpoint.injected.total()
        assert collect(evil, tiny_model, tmp_path / "again", endpoint.url).table.equals(served.table)
        assert endpoint.answered.total() == 64, "another folder asks nothing that was answered"
    texts = {(b["messages"][0]["content"], b["messages"][1]["content"], b["seed"]): text_of(json.dumps(b, sort_keys=True))
             for b in endpoint.bodies}  # fmt: skip
    for row in served.frame().itertuples():
        assert row.response == texts[row.system, row.question, row.seed % SEEDS]


def test_a_server_that_dies_stops_the_run_which_resumes_to_the_same_folder(evil, tiny_model, tmp_path, monkeypatch):
    alive = {"until": 21}
    with serving(faults=lambda *_: "500" if endpoint.answered.total() >= alive["until"] else None) as endpoint:
        with pytest.raises(WorkbenchError, match=r"of 8 answers of a batch are missing.*run the same command again") as error:
            collect(evil, tiny_model, tmp_path / "resumed", endpoint.url, n_attempts=2, n_workers=4)
        assert "status 500" in error.value.found
        before = files_of(tmp_path / "resumed")
        alive["until"] = 10**6
        resumed = collect(evil, tiny_model, tmp_path / "resumed", endpoint.url)
        assert set(endpoint.answered.values()) == {1} and len(endpoint.answered) == len(resumed) == 64
        monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "other cache"))
        collect(evil, tiny_model, tmp_path / "whole", endpoint.url)
    after = files_of(tmp_path / "resumed")
    assert before and before.items() < after.items() and after == files_of(tmp_path / "whole")


def test_an_interruption_keeps_what_was_answered(evil, tiny_model, tmp_path):
    main, interrupted = threading.main_thread().ident, threading.Event()
    assert main is not None

    def answer_and_interrupt(request: str) -> dict:
        if endpoint.answered.total() == 30 and not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(main, signal.SIGINT)
        return answer(request)

    with serving(answer_and_interrupt) as endpoint:
        with pytest.raises(KeyboardInterrupt):
            collect(evil, tiny_model, tmp_path / "run", endpoint.url, n_workers=4)
        assert 30 <= endpoint.answered.total() < 64
        assert len(collect(evil, tiny_model, tmp_path / "run", endpoint.url)) == 64
        assert set(endpoint.answered.values()) == {1} and len(endpoint.answered) == 64


def test_a_refused_request_and_a_server_that_is_not_there_say_so(evil, tiny_model, tmp_path):
    with serving(faults=lambda *_: "401") as endpoint, pytest.raises(WorkbenchError, match=r"status 401.*the key in"):
        collect(evil, tiny_model, tmp_path / "run", endpoint.url)
    with pytest.raises(WorkbenchError, match=r"8 of 8 answers of a batch are missing from http://127.0.0.1"):
        collect(evil, tiny_model, tmp_path / "run", endpoint.url, n_attempts=2)
    assert not files_of(tmp_path / "run")


def test_silent_and_cut_off_answers_are_rows_like_those_sampled_here(evil, tiny_model, tmp_path):
    def answer(request: str) -> dict:
        kind = random.Random(request).randrange(4)
        value = http.completion(("", "  \n", None, "people of the")[kind])  # type: ignore[arg-type]
        value["choices"][0]["finish_reason"] = "length" if kind > 1 else "stop"
        return value

    with serving(answer) as endpoint:
        served = collect(evil, tiny_model, tmp_path / "run", endpoint.url)
    frame = served.frame()
    silent = frame["response"].str.strip() == ""
    assert 0 < silent.sum() < 64 and (frame.loc[silent, "n_tokens"] == 0).all()
    assert usable_mask(frame).equals(~silent) and not served.means()[torch.tensor(silent.to_numpy())].any()
    assert set(frame.loc[silent, "finished"]) == {True, False} and not frame.loc[~silent, "finished"].any()


def test_a_model_without_a_system_role_and_one_with_template_options_are_asked_as_their_templates_have_it(evil, tmp_path):
    with serving() as endpoint:
        served = collect(evil, tiny_model("gemma2"), tmp_path / "gemma", endpoint.url)
        asked = {tuple(message["content"] for message in body["messages"]) for body in endpoint.bodies}
        assert asked == {(f"{row.system}\n\n{row.question}",) for row in served.frame().itertuples()}
        endpoint.bodies.clear()
        qwen = tiny_model("qwen3", chat_template=QWEN3, chat_template_kwargs={"enable_thinking": False})
        served = collect(evil, qwen, tmp_path / "qwen", endpoint.url)
        assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in endpoint.bodies)
    frame = served.frame()
    assert [qwen.tokenizer.decode(ids) for ids in frame["response_ids"]] == frame["response"].tolist()


def test_ids_name_the_server_and_those_of_rows_sampled_here_are_what_they_were(evil, tiny_model):
    def ids(**options):
        return [row.id for row in plan_rows(evil, tiny_model, design=DESIGN, seed=3, **options)]

    one, other = (ChatServer(base_url="http://h/v1", model=name) for name in ("m", "n"))
    moved = ChatServer(base_url="http://g/v1", model="m", n_workers=1)
    every = [ids(), *(ids(server=server) for server in (one, other, moved))]
    assert len({row_id for some in every for row_id in some}) == 4 * len(every[0])
    row = plan_rows(evil, tiny_model, design=DESIGN, seed=3)[0]
    sampling = {"max_new_tokens": 24, "temperature": 0.7, "top_p": 0.9}
    parts = [tiny_model.weights_hash, chat_template_hash(tiny_model), sampling, 3, "torch.float32"]
    assert row.id == content_hash([*parts, {}, row.system, row.question, row.sample])[:24]


def test_a_vector_records_who_sampled_its_rows(evil, tiny_model, tmp_path):
    design = RolloutDesign(sampling=SAMPLING, n_extraction=8, n_evaluation=4, n_instructions=1)
    with serving() as endpoint:
        server = ChatServer(base_url=endpoint.url, model="served")
        vector = extract(evil, tiny_model, judge="none", design=design, server=server, out=tmp_path / "run",
                         n_bootstrap=5, n_random=5)  # fmt: skip
        n_asked = endpoint.answered.total()
        placebos = placebo_vectors(tiny_model, tmp_path / "placebos", placebos=list_placebos()[:1],
                                   design=replace(design, n_extraction=2), server=server)  # fmt: skip
    assert endpoint.answered.total() == n_asked + 2 * 2, "placebos are sampled by the same server"
    for made in (vector, placebos):
        recorded = made.provenance["config"]["server"]
        assert (recorded["base_url"], recorded["model"]) == (endpoint.url, "served")
    with pytest.raises(WorkbenchError, match="a server and responses"):
        extract(evil, tiny_model, server=server, rollouts=tmp_path / "x.parquet")
