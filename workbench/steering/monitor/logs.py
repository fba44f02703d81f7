"""The log of a deployment: one JSON object per line, per token or per reply. No text is written unless it is asked for.

Fields of every line:

    schema    "workbench.monitor/1"                 time      UTC, ISO 8601
    kind      "token" or "reply"                    row, turn which row of the batch, which turn of the watch
    values    {signal: raw value}, null on a sink   norms     {signal: the same in median token norms}, vectors only

A token has `position` (0: last token of the prompt; 1: first of the reply) and, with `text=True`, `id` and `text`. A reply has
`n_tokens`; its `values` are means over its tokens; `prompt` {signal: raw value at the last token of the prompt}; `peak` {signal:
largest value}; `alarms` [{signal, statistic, window, threshold, rate, position}]; with `text=True`, `text`. Fields may be added
under the same schema.

A line is one write to a file opened for appending, so that lines of several processes do not mix.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.store import describe_os_error, make_folder
from workbench.steering.monitor.monitor import Monitor
from workbench.steering.monitor.watching import TokenSeen, WatchedReply

SCHEMA = "workbench.monitor/1"
DIGITS = 5


class JsonLines:
    """Appends lines to `path`: pass `token` or `reply` (or both) as callbacks of `watching`. A context manager; or call `close`.

    `tokenizer` is needed for `text=True`. The file is made readable to its owner only, because it says what people talked about.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: Monitor, *, text: bool = False, tokenizer: Any = None) -> None:
        if text and tokenizer is None:
            raise WorkbenchError("a log with text without a tokenizer", "the model's tokenizer", "pass tokenizer=model.tokenizer")
        self.path, self.monitor, self.text, self.tokenizer = path, monitor, text, tokenizer
        make_folder(os.path.dirname(os.path.abspath(path)))
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise describe_os_error(error, path) from error

    def token(self, seen: TokenSeen) -> None:
        """Write the line of a token."""
        said = {} if not self.text or seen.id is None else {"id": seen.id, "text": self.tokenizer.decode([seen.id])}
        self._write("token", seen.row, seen.turn, {"position": seen.position, **signal_values(self.monitor, seen.values), **said})

    def reply(self, reply: WatchedReply) -> None:
        """Write the line of a reply."""
        said = {"text": self.tokenizer.decode(list(reply.ids), skip_special_tokens=True)} if self.text else {}
        self._write("reply", reply.row, reply.turn, reply_values(reply) | said)

    def _write(self, kind: str, row: int, turn: int, more: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"schema": SCHEMA, "kind": kind, "time": now, "row": row, "turn": turn, **more}
        data = (json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n").encode()
        try:
            if os.write(self._file, data) != len(data):
                raise OSError("the disk took a part of a line only")
        except OSError as error:
            raise describe_os_error(error, self.path) from error

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reply_values(reply: WatchedReply) -> dict[str, Any]:
    """{n_tokens, values, norms, prompt, peak, alarms} of a reply, as JSON types."""
    names, n = reply.monitor.names, len(reply.values)
    peak = reply.values.nan_to_num(-math.inf).amax(dim=0).tolist() if n else [math.nan] * len(names)
    alarms = [
        {"signal": one.alarm.signal, "statistic": one.alarm.rule.statistic, "window": one.alarm.rule.window,
         "threshold": one.alarm.threshold, "rate": one.alarm.rate, "position": one.position}
        for one in reply.alarms()
    ]  # fmt: skip
    return {"n_tokens": n, **signal_values(reply.monitor, reply.mean), "prompt": _named(names, reply.prompt.tolist()),
            "peak": _named(names, peak), "alarms": alarms}  # fmt: skip


def signal_values(monitor: Monitor, values: Tensor) -> dict[str, Any]:
    """{values, norms} of one row of values [n_signals], as JSON types."""
    norms = _named(monitor.names, monitor.in_norms(values).tolist())
    return {"values": _named(monitor.names, values.tolist()),
            "norms": {signal.name: norms[signal.name] for signal in monitor.signals if signal.kind == "vector"}}  # fmt: skip


def _named(names: Sequence[str], values: Sequence[float]) -> dict[str, float | None]:
    return {name: round(value, DIGITS) if math.isfinite(value) else None for name, value in zip(names, values, strict=True)}
