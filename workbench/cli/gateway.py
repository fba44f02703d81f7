"""`workbench gateway`: a chat endpoint for a local model that says what a monitor sees, and caps it on request."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    DeviceOption,
    DtypeOption,
    HookOption,
    HostOption,
    JsonOption,
    MaxMemoryOption,
    OtherMachinesOption,
    PlanOption,
    PortOption,
    QuietOption,
    SaeOption,
)

if TYPE_CHECKING:
    from workbench.serving.gateway import Gateway
    from workbench.steering.monitor.monitor import Monitor

TOKEN = "WORKBENCH_GATEWAY_TOKEN"


def command(
    vectors: Annotated[
        list[str],
        typer.Argument(metavar="RUN|VECTOR|MONITOR", help="Run folders, vectors in any format, traits; or one saved monitor."),
    ],
    cap: Annotated[
        list[str] | None,
        typer.Option("--cap", metavar="NAME=NORMS", help="Keep the projection on a vector at most so large; again for more."),
    ] = None,
    capping: Annotated[
        Path | None, typer.Option("--capping", help="Put caps in force that `workbench axis cap` wrote, or published ones (.pt).")
    ] = None,
    feature: Annotated[
        list[int] | None, typer.Option("--feature", min=0, help="A feature to watch as well; again for more.")
    ] = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name, folder, GGUF file or hub id. [default: the vectors' own]")
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", help="Append a line per answer to this JSONL file (no words).")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Longest answer that may be asked for.")
    ] = 256,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    host: HostOption = "127.0.0.1",
    allow_other_machines: OtherMachinesOption = False,
    port: PortOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """A monitored chat endpoint.

    For clients of OpenAI's API: answers of a local model, with projections, alarms and caps.

    Listens on this machine only. The API key is printed once, or taken from WORKBENCH_GATEWAY_TOKEN (32 characters or more).
    Ctrl-C ends it.
    """
    from .console import emit, reserved_output
    from .short_plans import show_short_plan
    from .steering import monitor_job as job

    said = job.Said(vectors, None, None, None, (), 0.01, "running", 8, tuple(feature or ()), sae, hook, model, max_new_tokens,
                    log, False, None, None, dtype, device, max_memory, 0)  # fmt: skip
    limits = _caps(cap or [])
    if plan:
        value = job.plan(said, "--prompt")
        return emit(value, as_json=as_json, show=lambda: show_short_plan(value))
    with reserved_output(as_json, quiet):
        _serve(said, limits, capping, host=host, port=port, others_may=allow_other_machines, as_json=as_json)


def _serve(
    said: Any, limits: dict[str, float], capping: Path | None, *, host: str, port: int | None, others_may: bool, as_json: bool
) -> None:
    from workbench.serving.server import check_host, open_socket

    from .console import note
    from .serve import _require_framework

    _require_framework()
    check_host(host, others_may=others_may)
    key = _key()
    monitor, model, _ = said.monitor()
    with contextlib.ExitStack() as stack:
        gateway = _gateway(said, monitor, model, limits, stack, capping)
        made = stack.enter_context(contextlib.closing(open_socket(host, port)))
        _run(gateway, made, host, key, as_json=as_json)
    note("Stopped.")


def _gateway(
    said: Any, monitor: Monitor, model: Any, limits: dict[str, float], stack: contextlib.ExitStack, capping: Path | None = None
) -> Gateway:
    from workbench.serving.explorer import Limits
    from workbench.serving.gateway import Gateway
    from workbench.steering.monitor.logs import JsonLines

    log = None if said.log is None else stack.enter_context(JsonLines(said.log, monitor))
    edits = [*cap_edits(monitor, limits), *([] if capping is None else capping_edits(capping, model, said.sae))]
    return Gateway(model, monitor, edits, log, Limits(max_new_tokens=said.max_new_tokens))


def capping_edits(place: Path, model: Any, sae: str | None) -> list[Any]:
    """The edits of a capping: a folder of `workbench axis cap`, or a published file with one experiment."""
    from workbench.axis.capping.caps import Capping
    from workbench.axis.capping.published import read_cappings
    from workbench.base.errors import WorkbenchError
    from workbench.saes.registry import load_sae

    from .inputs import find_sae

    found = [Capping.load(place)] if place.is_dir() else list(read_cappings(place).values())
    if len(found) != 1:
        raise WorkbenchError(f"{place} holds {len(found)} experiments", "one", "write the wanted one to a file of its own")
    found[0].check(model)
    needed = found[0].sae is not None
    return list(found[0].edits(load_sae(find_sae(sae, model.name).reference) if needed else None))


def cap_edits(monitor: Monitor, limits: dict[str, float]) -> list[Any]:
    """An edit per cap: where replies are predicted, the projection on the vector of that name is at most so many median norms."""
    from workbench.base.errors import WorkbenchError
    from workbench.steering.edits import Edit

    edits = []
    for name, limit in limits.items():
        column = monitor.column(name)
        signal = monitor.signals[column]
        if signal.kind != "vector":
            raise WorkbenchError(f"a cap on {name}", "a vector's name", "cap a vector; features are watched only")
        edits.append(Edit.cap(monitor.readout[column], limit * monitor.norms[signal.hook], hook=signal.hook, scope="predicting",
                              label=name))  # fmt: skip
    return edits


def _caps(given: list[str]) -> dict[str, float]:
    import math

    from workbench.base.errors import WorkbenchError

    found = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not (name and equals and math.isfinite(limit)):
            raise WorkbenchError(f"--cap {text!r}", "a vector's name and a number, as in --cap evil=0.05", "correct it")
        found[name] = limit
    return found


def _key() -> str:
    import os

    from workbench.base.errors import WorkbenchError
    from workbench.serving.security import new_token

    given = os.environ.get(TOKEN)
    if given is not None and (len(given) < 32 or not given.isascii() or not given.isprintable() or " " in given):
        raise WorkbenchError(f"{TOKEN} is too short, or holds a blank or a sign beyond ASCII", "32 characters or more",
                             "choose a longer key, or unset it")  # fmt: skip
    return given or new_token()


def _run(gateway: Gateway, made: Any, host: str, key: str, *, as_json: bool) -> None:
    import json
    import logging
    import os

    from workbench.serving.gateway import make_gateway
    from workbench.serving.security import Access
    from workbench.serving.server import server_of

    from .console import note, results

    access = Access(key, host, int(made.getsockname()[1]))

    def ready() -> None:
        told = {"base_url": f"{access.address}/v1", "model": gateway.model.name, "pid": os.getpid()}
        told |= {} if TOKEN in os.environ else {"api_key": key}
        lines = [json.dumps(told)] if as_json else [f"{name}: {value}" for name, value in told.items()]
        print("\n".join(lines), file=results(), flush=True)
        note("Ctrl-C ends the gateway.")

    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    with contextlib.suppress(KeyboardInterrupt):
        server_of(make_gateway(gateway, access), ready=ready).run(sockets=[made])
