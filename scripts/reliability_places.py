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
    rows = [f"| {name} | {one['kills']} | {one['identical']} | {one['too_late']} | {one['seconds']:.1f} s | {one['n_files']} |"
            for name, one in kills.items()]  # fmt: skip
    heads = "\n| stage | kills | identical | too late, drawn again | a whole run | files compared |\n|---|---|---|---|---|---|\n"
    return heads + "\n".join(rows) + "\n"


def kills_default_line() -> str:
    """The same on the default model, in words."""
    kills = _part("kills_default_model")
    if not kills:
        return LATER
    n, same = (sum(one[name] for one in kills.values()) for name in ("kills", "identical"))
    seconds = [one["seconds"] for one in kills.values()]
    return (f"{same} of {n} kills of {len(kills)} stages, whose whole runs take {min(seconds):.0f} to {max(seconds):.0f} s, "
            "ended identical.")  # fmt: skip


def faults_table() -> str:
    """Fault by stage: how many were survived, of how many."""
    faults = {name: one for name, one in (_part("faults") or {}).items() if not name.startswith("_")}
    if not faults:
        return LATER
    stages = list(dict.fromkeys(stage for one in faults.values() for stage in one))
    rows = [f"| {name} | " + " | ".join("{} of {}".format(*one[stage]) if stage in one else "" for stage in stages) + " |"
            for name, one in faults.items()]  # fmt: skip
    return f"\n| fault | {' | '.join(stages)} |\n|---{'|---' * len(stages)}|\n" + "\n".join(rows) + "\n"


def fuzz_table() -> str:
    """Reader, inputs, refused, read, crashes, code that ran."""
    fuzz = _part("fuzz")
    if not fuzz:
        return LATER
    names = ("inputs", "refused", "read", "crashes", "slow", "executed")
    rows = [f"| {name} | " + " | ".join(f"{one[key]:,}" for key in names) + " |" for name, one in fuzz.items()]
    return f"\n| reader | {' | '.join(names)} |\n|---{'|---' * len(names)}|\n" + "\n".join(rows) + "\n"


def attacks_table() -> str:
    """Reader by kind of attack, how they ended, and the most memory that one took."""
    attacks = _part("attacks")
    if not attacks:
        return LATER
    kinds, ends = ("names", "code", "bombs", "special"), ("refused", "read", "crashes", "slow", "executed", "reached")
    rows = [f"| {name} | " + " | ".join([*(f"{one['attacks'][kind]:,}" for kind in kinds), *(f"{one[key]:,}" for key in ends)])
            + f" | {one['peak_mib']:,} |" for name, one in attacks.items()]  # fmt: skip
    return (f"\n| reader | {' | '.join((*kinds, *ends))} | most MiB |\n|---{'|---' * (len(kinds) + len(ends) + 1)}|\n"
            + "\n".join(rows) + "\n")  # fmt: skip


def versions_line() -> str:
    """Tests with the oldest and the newest versions of what the package needs."""
    versions = _part("versions")
    if not versions:
        return LATER
    told = [f"{name}: {one['passed']} passed, {one['failed']} failed" for name, one in versions.items()]
    late = versions.get("minimum", {}).get("not_reached")
    return "; ".join(told) + f". Minimums that others do not allow: {', '.join(late) if late else 'none'}."


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


def ray_line() -> str:
    """Faults of a real cluster."""
    one = _part("ray")
    if not one:
        return LATER
    return (f"{one['workers_killed']} workers killed, the head restarted {one['heads_restarted']} times, {one['disks_filled']} "
            f"disks filled: {one['lost']} rows lost, {one['repeated']} repeated, all files "
            f"{'identical' if one['identical'] else 'NOT identical'} to those of a run on one machine.")  # fmt: skip


def ray_store_line() -> str:
    """The same through an object store."""
    one = _part("ray_store")
    if not one:
        return LATER
    return (f"{one['workers_killed']} workers killed: {one['lost']} rows lost, {one['repeated']} repeated, all files "
            f"{'identical' if one['identical'] else 'NOT identical'} to those of a run on one machine; {one['n_objects']} "
            f"objects went through the bucket, {one['left_in_store']} left there.")  # fmt: skip


def ray_growth_table() -> str:
    """Seconds of the jobs without Ray and with more and more workers."""
    one = _part("ray_growth")
    if not one:
        return LATER
    rows = [f"| {job} | {alone:.1f} s | " + " | ".join(f"{row[job]:.1f} s" for row in one["workers"].values()) + " |"
            for job, alone in one["without_ray"].items()]  # fmt: skip
    heads = " | ".join(f"{n} worker{'s' * (n != '1')}" for n in one["workers"])
    return (f"\n| job | without Ray | {heads} |\n|---|---{'|---' * len(one['workers'])}|\n" + "\n".join(rows)
            + f"\n\n{one['cores']} cores, load {one['load_before']:.1f} before.\n")  # fmt: skip


def gpu_table() -> str:
    """What agrees between CPU and GPU, and how often the device is waited for."""
    gpu = _part("gpu")
    if not gpu:
        return LATER
    agreed = {name: one for name, one in gpu["agreement"].items() if isinstance(one, dict)}
    rows = [f"| {name.replace('_', ' ')} | {one['found']:.1e} | {one['tolerance']:g} | {'yes' if one['agrees'] else 'NO'} |"
            for name, one in agreed.items()]  # fmt: skip
    wait = gpu["waiting"]
    absent = [name for name in ("capture", "training", "decomposition") if name not in gpu]
    left = f" Speed beside floors and peers ({', '.join(absent)}) is not measured yet." if absent else ""
    return ("\n| on the GPU against the CPU | difference | tolerance | agrees |\n|---|---|---|---|\n" + "\n".join(rows)
            + f"\n\n{gpu['device']}, torch {gpu['torch']}. Sampling with captures at every block waits for the device "
            f"{wait['waits']} times in {wait['n_tokens']} tokens, {wait['per_further_token']:.2f} times for each further one (it "
            f"looks every {wait['looks_every']} tokens).{left}\n")  # fmt: skip


def measured_line() -> str:
    """At which commit each part was measured."""
    told = [f"{name} {one['commit'][:7]}{' (and changes not committed)' * one['commit'].endswith('+dirty')}"
            for name, one in _found().get("parts", {}).items()]  # fmt: skip
    return ", ".join(told) or LATER


PLACES = (
    kills_table, kills_default_line, faults_table, fuzz_table, attacks_table, canary_line, endpoint_line, wheel_line,
    versions_line, ray_line, ray_store_line, ray_growth_table, gpu_table, measured_line,
)
