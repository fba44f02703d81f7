"""What a run folder remembers of the commands that made it: the settings in force, where each came from, and the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.runs import RunFolder
from workbench.base.settings import config_files, find_setting
from workbench.base.store import sha256_file

from .config import STAGES, JobConfig

JOB, COMMANDS, MEANT = "job", "commands", "meant"
N_COMMANDS = 50
SETTING_OF = {"n_samples": "samples", "choose": "choose_layer", "judge_url": "base_url"}
"""Fields of JobConfig whose setting has another name."""
_KINDS = {"str": (str,), "str | None": (str, type(None)), "int": (int,), "bool": (bool,)}
_USER, _SECRET = r"(\w://)[^/\s]+@", r"([?&][\w-]*(?:key|token|secret|password)=)[^&#\s'\"]+"


def record_job(run: RunFolder, config: JobConfig, upto: str, *, meant: Mapping[str, Any]) -> None:
    """Write into the manifest what is about to be run, before any stage: an interrupted run can be taken up from it.

    `meant` is what settings that name nothing stood for (see `Job.meant`). Passwords inside addresses are left out; keys never
    stand in a command.
    """
    settings = {name: without_password(value) for name, value in asdict(_rooted(config)).items()}
    all_meant = {**_models_meant(config), **meant}
    job = {"settings": settings, MEANT: all_meant, "sources": _sources(config), "files": _files(), "upto": upto}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"command": _command(), "upto": upto, "started": now}
    run.note(**{JOB: job, COMMANDS: [*run.manifest.get(COMMANDS, []), said][-N_COMMANDS:]})


def recorded_job(manifest: dict[str, Any], folder: Path) -> tuple[JobConfig, str]:
    """(configuration, last stage) that the run in `folder` was made with; WorkbenchError where it does not say."""
    job = manifest.get(JOB)
    known = {field.name for field in fields(JobConfig)}
    if not isinstance(job, dict) or not isinstance(job.get("settings"), dict) or "upto" not in job:
        raise WorkbenchError(
            f"{folder} does not say what it was made with",
            "a run that was begun by this version",
            "give its settings again: workbench report TRAIT --out FOLDER ...",
        )
    if unknown := sorted(set(job["settings"]) - known):
        raise WorkbenchError(f"{folder} was made with settings unknown here: {', '.join(unknown)}", "settings of this version",
                             "install the persona-workbench that made it")  # fmt: skip
    kinds = {field.name: _KINDS[str(field.type)] for field in fields(JobConfig)}
    wrong = [name for name, value in job["settings"].items() if type(value) not in kinds[name]]
    if wrong or job["upto"] not in STAGES:
        raise WorkbenchError(
            f"{folder} says {', '.join(wrong) or 'its last stage'} in a way that no run writes",
            "a manifest as it was written",
            "give its settings again: workbench report TRAIT --out FOLDER ...",
        )
    return _as_meant(JobConfig(**job["settings"]), job.get(MEANT)), str(job["upto"])


def _models_meant(config: JobConfig) -> dict[str, Any]:
    """The models of judge and explainer that the settings name where the job names none."""
    unnamed = [name for name in ("judge_model", "explainer_model") if getattr(config, name) is None]
    return {name: find_setting(name).value for name in unnamed}


def _as_meant(config: JobConfig, meant: Any) -> JobConfig:
    """The configuration with the SAE, the judge and the models that it stood for, whatever shelf and settings say by now."""
    known = {name: value for name, value in meant.items() if isinstance(value, str)} if isinstance(meant, dict) else {}
    dtype = find_setting("judge_dtype").value or "float32"
    if known.get("judge_dtype", dtype) != dtype:
        raise WorkbenchError(f"the judge's replies were scored in {known['judge_dtype']}; judge_dtype is {dtype} now",
                             "the setting that the run was begun with",
                             f"set WORKBENCH_JUDGE_DTYPE={known['judge_dtype']}")  # fmt: skip
    names = ("sae", "judge", "judge_model", "explainer_model")
    return replace(config, **{name: getattr(config, name) or known.get(name) for name in names})


def without_password(value: Any) -> Any:
    """An address without user and password, and without the keys of its query; anything else as it is."""
    return re.sub(_SECRET, r"\1...", re.sub(_USER, r"\1", value), flags=re.I) if isinstance(value, str) else value


def _command() -> str:
    from .run import command_line

    arguments = command_line()
    return str(without_password(shlex.join(["workbench", *arguments]))) if arguments else "(from Python)"


def _rooted(config: JobConfig) -> JobConfig:
    """The configuration with absolute paths: it is read from other folders as well."""
    names = ("trait", "model", "sae")
    paths = {name: Path(str(getattr(config, name) or "")).expanduser() for name in names}
    return replace(config, **{name: str(path.resolve()) for name, path in paths.items() if _is_path(path)})


def _is_path(path: Path) -> bool:
    return path != Path() and path.exists() and (len(path.parts) > 1 or path.is_file())


def _sources(config: JobConfig) -> dict[str, str]:
    """Where each setting came from; what no setting says was given, as a flag or from Python."""
    found, tables = {}, _tables()
    for field in fields(config):
        here, value = find_setting(SETTING_OF.get(field.name, field.name)), getattr(config, field.name)
        known = {str(here.value): here.source, **tables.get(here.name, {})}
        found[field.name] = known.get(str(value), "default" if value == field.default else "given")
    return found


def _tables() -> dict[str, dict[str, str]]:
    """{flag: {value: place}} of what the settings files say of the command that runs."""
    from typer.main import get_command

    from .app import app
    from .defaults import flag_defaults
    from .run import command_line

    said, found = command_line(), {}
    for one in reversed(list(flag_defaults(get_command(app))) if said else []):
        if said[: len(one.command)] == list(one.command):
            found[one.name] = {str(one.value): one.source}
    return found


def _files() -> dict[str, str]:
    """{configuration file: its hash}, of those that there are."""
    return {str(path.resolve()): sha256_file(path) for path in config_files() if path.is_file()}
