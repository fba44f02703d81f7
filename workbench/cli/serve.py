"""`workbench serve`: a run in the browser, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    DeviceOption,
    DtypeOption,
    HostOption,
    JsonOption,
    MaxMemoryOption,
    ModelOption,
    OtherMachinesOption,
    PortOption,
    QuietOption,
    SaeOption,
)

if TYPE_CHECKING:
    from workbench.serving.runs import RunOnDisk


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or a folder of run folders; one model, one SAE.")
    ],
    index: Annotated[
        Path | None, typer.Option("--index", help="A feature index (`workbench features index`): contexts of every feature.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Label folder that your verdicts are written to. [default: labels are only shown]"),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Your name, to sign verdicts with. [default: WORKBENCH_ANNOTATOR]")
    ] = None,
    model: ModelOption = None,
    sae: SaeOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    host: HostOption = "127.0.0.1",
    allow_other_machines: OtherMachinesOption = False,
    port: PortOption = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look around in a run, in the browser.

    What a trait is made of, any text token by token, steering, labels.

    Listens on this machine only and prints an address with a token; nobody gets in without it. Ctrl-C ends it.
    """
    from workbench.base.settings import setting
    from workbench.serving.runs import find_runs

    from .console import reserved_output

    with reserved_output(as_json, quiet):
        found = find_runs(runs)
        _check(index, labels)
        load = _loader(found, model, sae, dtype, device, max_memory)
        _require_framework()
        _serve(found, load, index=index, labels=labels, annotator=str(setting("annotator", name) or ""), host=host, port=port,
               others_may=allow_other_machines, browser=not (no_browser or as_json), as_json=as_json)  # fmt: skip


def _serve(found: list[RunOnDisk], load: Any, *, index: Path | None, labels: Path | None, annotator: str, host: str,
           port: int | None, others_may: bool, browser: bool, as_json: bool) -> None:  # fmt: skip
    from workbench.serving.explorer import Explorer
    from workbench.serving.server import access_for, check_host, entrance, open_socket, serve

    from .console import note

    check_host(host, others_may=others_may)
    explorer = Explorer(found, load, index=index, labels=labels, annotator=annotator)
    made = open_socket(host, port)
    access = access_for(made, host)
    door = entrance(access.url) if browser else None

    def ready() -> None:
        _announce(access.url, found, as_json)
        if door is not None:
            _open(door)

    try:
        serve(explorer, made, access, ready=ready)
    except KeyboardInterrupt:
        note("\nStopped.")
    finally:
        made.close()
        if door is not None:
            door.unlink(missing_ok=True)


def _check(index: Path | None, labels: Path | None) -> None:
    """Refuse, before anything is loaded, an index that is none, and a label folder inside the installed package."""
    import workbench
    from workbench.base.errors import WorkbenchError

    if index is not None and not (index / "feature_index.json").is_file():
        raise WorkbenchError(f"{index} is no finished feature index", "a folder with feature_index.json",
                             "build one with `workbench features index`, or leave out --index")  # fmt: skip
    if labels is not None:
        package = Path(workbench.__file__).resolve().parent
        if labels.exists() and not labels.is_dir():
            raise WorkbenchError(f"{labels} is not a folder", "a folder for label files", "choose another one with --labels")
        if labels.resolve().is_relative_to(package):
            raise WorkbenchError(f"{labels} is part of the installed package", "a label folder of your own",
                                 "choose one with --labels, for instance --labels my_labels")  # fmt: skip


def _loader(found: list[RunOnDisk], model: str | None, sae: str | None, dtype: str | None, device: str | None,
            max_memory: str | None) -> Any:  # fmt: skip
    """What loads model and SAE later; their names are looked up now, so that a wrong one is told at once."""
    from workbench.base.settings import setting

    from . import inputs

    name = str(setting("model", model) or found[0].model["name"])
    inputs.model_identity(name)
    described = next((run.sae for run in found if run.sae), None)
    wanted = setting("sae", sae) or (None if described is None else described["id"])
    site = inputs.find_sae(wanted, name) if wanted or inputs.has_sae(name) else None
    dtype = str(setting("dtype", dtype) or found[0].model.get("dtype") or "float32")
    device, max_memory = setting("device", device), setting("max_memory", max_memory)

    def load() -> Any:
        from dataclasses import replace

        from workbench.models.loading import load_model
        from workbench.saes.registry import load_sae

        placed: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {"device": device}
        loaded = load_model(name, dtype=dtype, max_memory=max_memory, **placed)
        return loaded, None if site is None else replace(load_sae(site.reference), id=site.id)

    return load


def _require_framework() -> None:
    from importlib.util import find_spec

    from workbench.base.errors import WorkbenchError

    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        raise WorkbenchError(f"{' and '.join(missing)} cannot be imported", "the extra `serve`",
                             "pip install 'persona-workbench[serve]'")  # fmt: skip


def _announce(url: str, found: list[RunOnDisk], as_json: bool) -> None:
    """The address, on standard output and nowhere else: whoever has it can come in."""
    import json
    import os

    from .console import note, results

    value = {
        "url": url,
        "pid": os.getpid(),
        "traits": [run.trait for run in found],
        "runs": [str(run.folder) for run in found],
    }
    print(json.dumps(value) if as_json else url, file=results(), flush=True)  # one line: a program reads it and goes on
    note("Open that address (it holds the key; the model is still being loaded). Ctrl-C ends the explorer.")


def _open(door: Path) -> None:
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(door.as_uri(),), daemon=True).start()
