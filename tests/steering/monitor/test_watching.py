"""Watching while generating: the numbers are those of a second pass, the text is the same, and nothing stays behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.coroutines import run_apart
from tests.saes.planted import small_sae
from tests.tiny import n_hooks, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.capture import sink_limits
from workbench.models.generation import generate
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import tokenize_chat, with_response
from workbench.models.sampling import Sampling
from workbench.personas.vectors import PersonaVector
from workbench.saes.token_rows import activations_at_hooks
from workbench.steering.monitor.alarms import Alarm, Rule
from workbench.steering.monitor.monitor import Monitor
from workbench.steering.monitor.streaming import watched_stream, watched_stream_async
from workbench.steering.monitor.watching import watching

HOOKS = (HookPoint(1), HookPoint(2))
QUESTIONS = ("What should I do?", "Who are you, and what do you want of the people of the town?", "Rain?", "Answer in a word.")


def vectors(model: Any) -> list[PersonaVector]:
    random = torch.Generator().manual_seed(3)
    made = [torch.randn(model.d_model, generator=random) * 2 for _ in HOOKS]
    return [PersonaVector.from_direction(v, trait=name, model=model.description(), hook=hook)
            for v, name, hook in zip(made, ("evil", "kind"), HOOKS, strict=True)]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    made = tiny_model(seed=5)
    made.hf.generation_config.eos_token_id = list(range(300, 330))  # so that replies end, each at another place
    return made


@pytest.fixture(scope="module")
def sae(model: Any) -> Any:
    return replace(small_sae(model.d_model, block=1), model_name=model.name)


@pytest.fixture(scope="module")
def monitor(model: Any, sae: Any) -> Monitor:
    return Monitor.of(model, vectors(model), sae=sae, features=[0, 7])


def prompts(model: Any) -> list[Any]:
    return [tokenize_chat(model, [{"role": "user", "content": text}], add_generation_prompt=True) for text in QUESTIONS]


def expected(model: Any, monitor: Monitor, sae: Any, ids: list[int]) -> torch.Tensor:
    """Values [seq, n_signals] of a second pass over the whole text."""
    found = activations_at_hooks(model, list(HOOKS), torch.tensor([ids]))
    units = [v.direction / v.direction.norm() for v in vectors(model)]
    columns = [found[hook][0] @ unit for hook, unit in zip(HOOKS, units, strict=True)]
    codes = sae.encode(found[HOOKS[0]][0])
    columns += [codes[:, feature] for feature in (0, 7)]
    limits = dict(zip(HOOKS, sink_limits(model, HOOKS), strict=True))
    for i, signal in enumerate(monitor.signals):
        columns[i] = columns[i].masked_fill(found[signal.hook][0].norm(dim=-1) > limits[signal.hook], torch.nan)
    return torch.stack(columns, dim=1)


def test_the_values_are_those_of_a_second_pass_and_the_text_is_unchanged(model: Any, monitor: Monitor, sae: Any) -> None:
    chats, seeds, sampling = prompts(model), [1, 2, 3, 4], Sampling(max_new_tokens=24)

    def told() -> dict[int, Any]:
        return {row: one for rows, made in generate(model, chats, sampling, row_seeds=seeds, hooks=[HOOKS[1]], batch_size=4)
                for row, one in zip(rows, made, strict=True)}  # fmt: skip

    plain = told()
    before = n_hooks(model)
    with watching(monitor, model) as log:
        watched = told()
    assert n_hooks(model) == before
    replies = {reply.row: reply for reply in log.replies()}
    assert sorted(replies) == [0, 1, 2, 3]
    assert len({len(one.response_ids) for one in plain.values()}) > 1, "rows of one length would not test leaving the batch"
    for row, one in plain.items():
        assert watched[row].response_ids == one.response_ids
        assert replies[row].ids == one.response_ids
        whole = expected(model, monitor, sae, list(with_response(chats[row], one.response_ids).ids))
        n = len(chats[row].ids)
        torch.testing.assert_close(replies[row].values, whole[n:], atol=2e-4, rtol=1e-4, equal_nan=True)
        torch.testing.assert_close(replies[row].prompt, whole[n - 1], atol=2e-4, rtol=1e-4, equal_nan=True)
    fired = torch.cat([reply.values for reply in replies.values()])[:, 2:]
    assert bool((fired > 0).any()) and bool((fired == 0).any()), "features that always or never fire would not test the gate"


@pytest.mark.parametrize("bare", [False, True], ids=["Model", "bare transformers"])
def test_it_works_around_transformers_own_generate_with_left_padding(model: Any, monitor: Monitor, sae: Any, bare: bool) -> None:
    chats = prompts(model)
    width = max(map(len, chats))
    ids = torch.tensor([[0] * (width - len(chat)) + list(chat.ids) for chat in chats])
    mask = torch.tensor([[0] * (width - len(chat)) + [1] * len(chat) for chat in chats])
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    plain = model.hf.generate(ids, **options)
    with monitor.watching(model.hf if bare else model) as log:
        found = model.hf.generate(ids, **options)
        model.hf.generate(ids[:1], **{**options, "attention_mask": mask[:1]})
    assert torch.equal(found, plain)
    replies = log.replies()
    assert [(reply.turn, reply.row) for reply in replies] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    for chat, reply, row in zip(chats, replies, found.tolist(), strict=False):
        whole = expected(model, monitor, sae, [*chat.ids, *row[width : width + len(reply.values)]])
        assert 0 < len(reply.values) <= 11  # the last sampled token is never fed
        torch.testing.assert_close(reply.values, whole[len(chat) :], atol=2e-4, rtol=1e-4, equal_nan=True)
        assert list(reply.ids) == row[width : width + len(reply.ids)]
    torch.testing.assert_close(replies[4].values, replies[0].values, atol=2e-4, rtol=1e-4, equal_nan=True)


def test_edits_that_were_entered_before_are_seen(model: Any, monitor: Monitor) -> None:
    from workbench.models.editing import adding

    chat, seen = prompts(model)[0], []
    delta = vectors(model)[0].direction
    for edited in (False, True):
        context = adding(model, HOOKS[0], delta) if edited else torch.no_grad()
        with context, watching(monitor, model) as log:
            model.forward(torch.tensor([chat.ids]))
        seen.append(log.replies()[0].prompt[0])
    assert float(seen[1] - seen[0]) == pytest.approx(float(delta.norm()), rel=1e-4)


def test_hooks_are_gone_after_an_exception_in_a_callback(model: Any, monitor: Monitor) -> None:
    before = n_hooks(model)

    def refuse(_: Any) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"), watching(monitor, model, on_token=refuse):
        model.forward(torch.tensor([prompts(model)[0].ids]))
    assert n_hooks(model) == before


def test_callbacks_are_told_tokens_alarms_and_replies_as_the_log_has_them(model: Any, monitor: Monitor) -> None:
    chats, sampling = prompts(model), Sampling(max_new_tokens=20)
    with watching(monitor, model) as log:
        list(generate(model, chats, sampling, row_seeds=[1, 2, 3, 4], hooks=[HOOKS[1]]))
    level = float(torch.cat([reply.values[:, 0] for reply in log.replies()]).nanmedian())
    rules = (Rule("running", 4), Rule("running", 1), Rule("mean"), Rule("prompt"))
    armed = monitor.with_alarms([Alarm("evil", rule, level, 0.1) for rule in rules])
    tokens, alarms, replies = [], [], []
    with watching(armed, model, on_token=tokens.append, on_alarm=alarms.append, on_reply=replies.append) as log:
        list(generate(model, chats, sampling, row_seeds=[1, 2, 3, 4], hooks=[HOOKS[1]]))
    told = {(one.row, one.position): one for one in tokens}
    for reply in log.replies():
        values = torch.stack([told[reply.row, i].values for i in range(1, len(reply.values) + 1)])
        torch.testing.assert_close(values, reply.values, equal_nan=True)
        assert [told[reply.row, i].id for i in range(1, len(reply.values) + 1)] == list(reply.ids)
        torch.testing.assert_close(told[reply.row, 0].values, reply.prompt, equal_nan=True)
    assert len(told) == sum(len(reply.values) + 1 for reply in log.replies())
    wanted = sorted((a.row, rules.index(a.alarm.rule), a.position) for reply in log.replies() for a in reply.alarms())
    assert sorted((a.row, rules.index(a.alarm.rule), a.position) for a in alarms) == wanted and len(wanted) > 4
    assert [reply.row for reply in replies] == [reply.row for reply in log.replies()]


def test_a_watch_without_history_tells_its_turns_and_forgets_them(model: Any, monitor: Monitor) -> None:
    chat, told = prompts(model)[0], []
    with monitor.watching(model, on_reply=told.append, history=False) as log:
        for _ in range(3):
            model.forward(torch.tensor([chat.ids]))
    assert [reply.turn for reply in told] == [0, 1, 2] and log.replies() == []
    assert torch.equal(told[0].prompt, told[2].prompt)


def test_a_stream_gives_the_same_reply_with_its_tokens_one_step_behind(model: Any, monitor: Monitor) -> None:
    from workbench.models.generation import stream

    chat, sampling = prompts(model)[1], Sampling(max_new_tokens=10)
    plain = list(stream(model, [chat], sampling, row_seeds=[7]))[-1][0]
    steps = list(watched_stream(model, monitor, [chat], sampling, row_seeds=[7]))
    assert steps[-1].replies[0].response_ids == plain.response_ids
    assert [one.position for one in steps[0].seen] == [0]
    seen = [one.id for step in steps for one in step.seen if one.position]
    assert seen == list(plain.response_ids)[: len(seen)] and len(seen) >= len(plain.response_ids) - 1


def test_the_asynchronous_stream_is_the_same_and_cleans_up_when_it_is_closed(model: Any, monitor: Monitor) -> None:
    chat, sampling, before = prompts(model)[1], Sampling(max_new_tokens=10), n_hooks(model)

    def make() -> Any:
        return watched_stream(model, monitor, [chat], sampling, row_seeds=[7])

    async def all_of_it() -> list[Any]:
        return [step async for step in watched_stream_async(make)]

    async def only_two() -> int:
        steps = watched_stream_async(make)
        async for _ in steps:
            break
        await steps.aclose()  # type: ignore[attr-defined]
        return n_hooks(model)

    assert [s.replies[0].text for s in run_apart(all_of_it())] == [s.replies[0].text for s in make()]
    assert run_apart(only_two()) == before


def test_a_monitor_is_saved_and_read_back_and_refuses_another_model(model: Any, monitor: Monitor, tmp_path: Any) -> None:
    armed = monitor.with_alarms([Alarm("kind", Rule("running", 8), 1.5, 0.05, {"rate": 0.04, "interval": [0.01, 0.09]})])
    armed.save(tmp_path)
    back = Monitor.load(tmp_path)
    assert back.signals == armed.signals and back.alarms == armed.alarms and back.norms == armed.norms
    for name in ("readout", "offset", "gate"):
        assert torch.equal(getattr(back, name), getattr(armed, name))
    with pytest.raises(WorkbenchError, match="The monitor is of tiny-llama-5"), watching(back, tiny_model(seed=6)):
        pass
    with pytest.raises(WorkbenchError, match="The monitor is of"), watching(back, tiny_model("qwen2").hf):
        pass
    path = tmp_path / "monitor.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(WorkbenchError):
        Monitor.load(tmp_path)


def test_what_cannot_be_watched_is_refused(model: Any, sae: Any) -> None:
    with pytest.raises(WorkbenchError, match="Nothing to watch"):
        Monitor.of(model)
    with pytest.raises(WorkbenchError, match="Two signals of one name"):
        Monitor.of(model, [vectors(model)[0]] * 2)
    with pytest.raises(WorkbenchError, match=r"The vector of evil is of"):
        Monitor.of(tiny_model(seed=6), vectors(model))
    with pytest.raises(WorkbenchError, match="top-k SAE"):
        Monitor.of(model, sae=replace(sae, architecture="topk", k=4, threshold=None), features=[1])
    with pytest.raises(WorkbenchError, match="Feature 99999"):
        Monitor.of(model, sae=sae, features=[99999])
