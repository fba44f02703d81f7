"""Watching a model while it generates: hooks that keep one small row of numbers per token, with no second pass.

At every pass the newest token's residual is multiplied with the monitor's matrix; the few numbers that come of it stay where the
model is, and nothing waits for them until they are read. With a callback they are fetched token by token.

Works around `models.generation` and around transformers' `generate` (greedy and sampling, any batch, padding on the left). A pass
over several positions begins a turn; its last position is the last token of the prompt. The token that is sampled last is never
fed to the model, so it has no activation and no row. A prompt of a single token begins a turn only where it is the first of its
watch. Beam search and assisted decoding feed other tokens than they return, and decoding without a cache feeds all of them again:
not for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.models.hookpoints import HookPoint
from workbench.models.hooks import HookFunction, on_input, on_output, site_module
from workbench.models.model import Model, decoder_blocks
from workbench.models.norms import SINK_FACTOR
from workbench.steering.monitor.alarms import Alarm
from workbench.steering.monitor.monitor import Monitor


@dataclass(frozen=True, eq=False)
class TokenSeen:
    """One token of one row: `position` 0 is the last token of the prompt, 1 the first token of the reply.

    `values` [n_signals] (float32, CPU) are raw, NaN on a sink; `id` is the token's id, None where the model was given embeddings.
    """

    row: int
    turn: int
    position: int
    id: int | None
    values: Tensor


@dataclass(frozen=True, repr=False)
class AlarmRaised(Shown):
    """An alarm, and where: at `position` of the reply (1-based; 0 before it) in a row and turn."""

    alarm: Alarm
    row: int
    turn: int
    position: int


@dataclass(frozen=True, eq=False, repr=False)
class WatchedReply(Shown):
    """What was seen of one reply: `prompt` [n_signals] at the last token of its prompt, `values` [n_tokens, n_signals] at its
    tokens (thinking included, the end token not); float32, CPU, raw, NaN on sinks. `ids` are its token ids, () where unknown."""

    monitor: Monitor
    row: int
    turn: int
    prompt: Tensor
    values: Tensor
    ids: tuple[int, ...] = ()

    @property
    def mean(self) -> Tensor:
        """The mean over its tokens [n_signals]; NaN for a reply without any."""
        return self.values.nanmean(dim=0)

    def alarms(self) -> list[AlarmRaised]:
        """The monitor's alarms that this reply raises, each where it is raised first."""
        found = []
        for alarm in self.monitor.alarms:
            column = self.monitor.column(alarm.signal)
            position = alarm.first(self.values[:, column], self.prompt[column])
            if position is not None:
                found.append(AlarmRaised(alarm, self.row, self.turn, position))
        return sorted(found, key=lambda one: one.position)


@dataclass(eq=False)
class _Pass:
    """One forward pass: the ids of its newest tokens, the rows that it holds, and what was kept of them."""

    ids: Tensor | None
    rows: tuple[int, ...]
    kept: dict[HookPoint, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Watch(Shown):
    """What a monitor has seen so far: `replies()`. Made by `watching`."""

    def __init__(
        self, monitor: Monitor, *, end_tokens: frozenset[int] = frozenset(),
        rows_now: Callable[[], Sequence[int] | None] | None = None,
        on_token: Callable[[TokenSeen], None] | None = None, on_alarm: Callable[[AlarmRaised], None] | None = None,
        on_reply: Callable[[WatchedReply], None] | None = None, history: bool = True,
    ) -> None:  # fmt: skip
        self.history = history
        self.monitor, self.end_tokens, self._rows_now = monitor, end_tokens, rows_now or (lambda: None)
        self._on_token, self._on_alarm, self._on_reply = on_token, on_alarm, on_reply
        self._turns: list[list[_Pass]] = []
        self._ids: Tensor | None = None
        self._pass: _Pass | None = None
        self._weights: dict[tuple[HookPoint, torch.device], tuple[Tensor, Tensor]] = {}
        self._told, self._n_ended = _Told(), 0

    # What the hooks call

    def saw_ids(self, ids: Tensor) -> None:
        """The token ids [batch, seq] of the pass that begins."""
        self._ids = ids[:, -1].detach()

    def functions(self) -> dict[HookPoint, HookFunction]:
        """What to attach at each hook point; nothing is changed."""
        return {hook: self._reader(hook) for hook in self.monitor.hooks}

    def _reader(self, hook: HookPoint) -> HookFunction:
        first, last = self.monitor.hooks[0], self.monitor.hooks[-1]

        def read(tensor: Tensor) -> None:
            with torch.no_grad():
                newest = tensor[:, -1].float()
                if hook == first:
                    self._begin(*tensor.shape[:2])
                readout, offset = self._matrix(hook, newest.device)
                assert self._pass is not None
                self._pass.kept[hook] = (torch.addmm(offset, newest, readout), newest.norm(dim=-1))
                if hook == last:
                    self._end_pass()

        return read

    def _matrix(self, hook: HookPoint, device: torch.device) -> tuple[Tensor, Tensor]:
        if (hook, device) not in self._weights:
            columns = self.monitor.columns_at(hook)
            self._weights[hook, device] = (self.monitor.readout[columns].T.contiguous().to(device),
                                           self.monitor.offset[columns].to(device))  # fmt: skip
        return self._weights[hook, device]

    def _begin(self, n_rows: int, width: int) -> None:
        self._pass = _Pass(self._ids, tuple(self._rows_now() or range(n_rows)))
        self._ids = None
        if width > 1 or not self._turns:
            self.end_turn()
            self._turns.append([])

    def _end_pass(self) -> None:
        assert self._pass is not None
        self._turns[-1].append(self._pass)
        if self._on_token or self._on_alarm:
            self._tell(self._pass)
        self._pass = None

    # What is read

    def replies(self) -> list[WatchedReply]:
        """Every reply so far, turn by turn, in the order of the rows."""
        return [reply for turn in range(len(self._turns)) for reply in self._replies_of(turn)]

    def _replies_of(self, turn: int) -> list[WatchedReply]:
        passes = self._turns[turn]
        if not passes:
            return []
        rows = passes[0].rows
        values = torch.stack([self._spread(one, rows) for one in passes])
        ids = _spread_ids(passes, rows)
        return [self._reply(turn, row, values[:, place], None if ids is None else ids[:, place].tolist())
                for place, row in enumerate(rows)]  # fmt: skip

    def _reply(self, turn: int, row: int, values: Tensor, ids: list[int] | None) -> WatchedReply:
        if ids is None:
            return WatchedReply(self.monitor, row, turn, values[0], values[1:])
        stops = [i for i, token in enumerate(ids[1:]) if token in self.end_tokens or token < 0]
        n = stops[0] if stops else len(ids) - 1
        return WatchedReply(self.monitor, row, turn, values[0], values[1 : n + 1], tuple(ids[1 : n + 1]))

    def _spread(self, one: _Pass, rows: Sequence[int]) -> Tensor:
        """Values [n_rows, n_signals] of a pass on the CPU, for the turn's `rows`; NaN on sinks and for rows that have left."""
        found = torch.full((len(rows), len(self.monitor.signals)), torch.nan)
        places = torch.tensor([rows.index(row) for row in one.rows])
        for hook, (read, norms) in one.kept.items():
            columns = self.monitor.columns_at(hook)
            values = self.monitor.gated(read.cpu(), columns)
            values.masked_fill_((norms.cpu() > SINK_FACTOR * self.monitor.norms[hook])[:, None], torch.nan)
            found[places[:, None], torch.tensor(columns)] = values
        return found

    # What callbacks are told

    def _tell(self, one: _Pass) -> None:
        values, ids = self._spread(one, one.rows), _spread_ids([one], one.rows)
        position, turn = len(self._turns[-1]) - 1, len(self._turns) - 1
        for place, row in enumerate(one.rows):
            token = None if ids is None else int(ids[0, place])
            if position and token in self.end_tokens:
                self._told.ended.add(row)
            if row not in self._told.ended:
                seen = TokenSeen(row, turn, position, token, values[place])
                if self._on_token:
                    self._on_token(seen)
                if self._on_alarm:
                    self._watch_alarms(seen)

    def _watch_alarms(self, seen: TokenSeen) -> None:
        """Tell the alarms that this token raises; what is only decided at the reply's end is told by `end_turn`."""
        history = self._told.values.setdefault(seen.row, [])
        if seen.position:
            history.append(seen.values)
        for number, alarm in enumerate(self.monitor.alarms):
            rule, column = alarm.rule, self.monitor.column(alarm.signal)
            if rule.statistic == "prompt":
                raised = not seen.position and float(seen.values[column]) > alarm.threshold
            else:
                full = rule.statistic == "running" and seen.position >= rule.window
                recent = torch.stack([values[column] for values in history[-rule.window :]]) if full else None
                raised = recent is not None and float(recent.nanmean()) > alarm.threshold
            if raised:
                self._raise(number, seen.row, seen.turn, seen.position)

    def _raise(self, number: int, row: int, turn: int, position: int) -> None:
        if (row, number) not in self._told.raised and self._on_alarm:
            self._told.raised.add((row, number))
            self._on_alarm(AlarmRaised(self.monitor.alarms[number], row, turn, position))

    def end_turn(self) -> None:
        """The replies of the last turn are over: what only their end decides is told now, once."""
        told, self._n_ended = self._n_ended, len(self._turns)
        if len(self._turns) > told and (self._on_alarm or self._on_reply):
            for reply in self._replies_of(len(self._turns) - 1):
                for raised in reply.alarms() if self._on_alarm else ():
                    self._raise(self.monitor.alarms.index(raised.alarm), reply.row, reply.turn, raised.position)
                if self._on_reply:
                    self._on_reply(reply)
        if self._turns and not self.history:
            self._turns[-1] = []
        self._told = _Told()


@dataclass(eq=False)
class _Told:
    """Of the turn that runs: the values of each row, rows that ended, alarms (row, number) that were raised."""

    values: dict[int, list[Tensor]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    raised: set[tuple[int, int]] = field(default_factory=set)


def _spread_ids(passes: Sequence[_Pass], rows: Sequence[int]) -> Tensor | None:
    """Newest ids [n_passes, n_rows]; -1 for rows that have left; None where they are not known."""
    found = torch.full((len(passes), len(rows)), -1, dtype=torch.long)
    for line, one in zip(found, passes, strict=True):
        if one.ids is None:
            return None
        line[[rows.index(row) for row in one.rows]] = one.ids.cpu().long()
    return found


@contextlib.contextmanager
def watching(
    monitor: Monitor, model: Any, *, on_token: Callable[[TokenSeen], None] | None = None,
    on_alarm: Callable[[AlarmRaised], None] | None = None, on_reply: Callable[[WatchedReply], None] | None = None,
    history: bool = True,
) -> Iterator[Watch]:  # fmt: skip
    """A context in which `monitor` watches `model`, a `Model` or a bare transformers causal model; see the module's words.

    The callbacks are called in the thread that generates: `on_token` and `on_alarm` as the tokens are read (each then waits for
    the device), `on_reply` when a turn ends. An exception of theirs ends the generation. Edits that were entered before are seen,
    later ones at the same hook point are not. Hooks are removed on leaving, also after an exception. With `history=False` a turn
    is forgotten when it has been told: for a watch that stays open as long as a server runs. Raises WorkbenchError for another
    model.

        with watching(monitor, model) as log:
            model.hf.generate(**batch, max_new_tokens=64)
        log.replies()[0].mean
    """
    monitor.check(model)
    ours = isinstance(model, Model)
    watch = Watch(
        monitor, end_tokens=model.end_tokens if ours else _end_tokens(model),
        rows_now=(lambda: model.batch_rows) if ours else None, on_token=on_token, on_alarm=on_alarm, on_reply=on_reply,
        history=history,
    )  # fmt: skip
    hf = model.hf if ours else model

    def ids(_module: Any, arguments: tuple, values: dict) -> None:
        if not (ours and model.hooks_suspended):
            watch.saw_ids(arguments[0] if arguments else values["input"])

    with contextlib.ExitStack() as stack:
        stack.callback(hf.get_input_embeddings().register_forward_pre_hook(ids, with_kwargs=True).remove)
        stack.enter_context(model.hooked(watch.functions()) if ours else _attached(hf, watch.functions()))
        yield watch
        watch.end_turn()


@contextlib.contextmanager
def _attached(hf: Any, functions: dict[HookPoint, HookFunction]) -> Iterator[None]:
    """Plain torch hooks on a bare transformers model."""
    blocks, handles = decoder_blocks(hf.get_decoder()), []
    try:
        for hook, function in functions.items():
            module, side = site_module(blocks[hook.block], hook.site)
            handles.append((on_input if side == "input" else on_output)(module, function))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _end_tokens(hf: Any) -> frozenset[int]:
    listed = getattr(hf.generation_config, "eos_token_id", None) if hf.generation_config else None
    return frozenset([listed] if isinstance(listed, int) else listed or ())
