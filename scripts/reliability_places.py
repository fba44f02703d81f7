"""The places in docs/reliability.md that docs/evidence/reliability.json fills; a part that was not measured yet says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "reliability.json"
LATER = "*Not measured yet: `make evidence TOPIC=reliability`.*"


def _found() -> dict[str, Any]:
    return read_json(EVIDENCE) if EVIDENCE.is_file() else {}


def _part(name: str) -> Any:
    return _found().get("parts", {}).get(name, {}).get("found")


def kills_table() -> str:
    """Stage, kills, how many ended identical, length of a whole run."""
    kills = _part("kills")
    if not kills:
        return LATER
    rows = [f"| {name} | {one['kills']} | {one['identical']} | {one['seconds']:.1f} s | {one['n_files']} |"
            for name, one in kills.items()]  # fmt: skip
    return "\n| stage | kills | identical | a whole run | files |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


def fuzz_table() -> str:
    """Reader, inputs, refused, read, crashes, code that ran."""
    fuzz = _part("fuzz")
    if not fuzz:
        return LATER
    names = ("inputs", "refused", "read", "crashes", "slow", "executed")
    rows = [f"| {name} | " + " | ".join(f"{one[key]:,}" for key in names) + " |" for name, one in fuzz.items()]
    return f"\n| reader | {' | '.join(names)} |\n|---{'|---' * len(names)}|\n" + "\n".join(rows) + "\n"


def canary_line() -> str:
    """Leaks and foreign connections."""
    canary = _part("canary")
    if not canary:
        return LATER
    return (f"{canary['leaks']} of {canary['n_files']} files and {len(canary['commands'])} commands' messages hold a key or the "
            f"beginning of one; {canary['connections']} foreign addresses were asked for; the endpoint got "
            f"{canary['n_requests']} requests.")  # fmt: skip


def endpoint_line() -> str:
    """Lost, repeated and leaked at a faulty endpoint."""
    one = _found().get("endpoint")
    if not one:
        return LATER
    left = ", ".join(f"{one[name]} {name}" for name in ("lost", "repeated", "leaked"))
    return f"{one['n_faults']} faults in {one['n_requests']} requests: {left}."


def wheel_line() -> str:
    """The wheel alone."""
    wheel = _part("wheel")
    if not wheel:
        return LATER
    return (f"{wheel['bytes'] / 1e6:.0f} MB, {wheel['n_files']:,} files; `twine check --strict` "
            f"{'passed' if wheel['twine'] else 'failed'}; the main job on the default model, installation included, "
            f"{'ended' if wheel['main_job'] else 'did not end'} after {wheel['seconds'] / 60:.0f} minutes.")  # fmt: skip


PLACES = (kills_table, fuzz_table, canary_line, endpoint_line, wheel_line)
