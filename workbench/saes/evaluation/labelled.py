"""Labelled texts for probing: sets of the `sae-probes` asset, chosen by name in data/probe_sets.yaml.

No text on which the SAE may have been trained is used: of the sets that SAE training reads, only documents of the held-out
role (`saes.corpus`); sets with reserved words (hate, offensive, toxic, ...) are never trained on. Of neither is a text used
that begins (first 160 characters) as a training document does: the sets share texts, some with other ends. The asset
holds no out-of-distribution sets: a probe's transfer is measured on another set of the same concept from another source.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.randomness import derive_seed, generator

if TYPE_CHECKING:
    from torch import Tensor

CHARACTERS_PER_TOKEN = 12  # an upper bound that keeps tokenizing cheap; the cut itself is in tokens
TEST_SHARE = 0.4
BEGINNING = 160
"""Characters; what `saes.corpus` tells repeated documents by."""


@dataclass(frozen=True)
class ProbeSet:
    """What a set of data/probe_sets.yaml says: its name, the target that counts as positive, and what it is about."""

    name: str
    positive: str
    concept: str


@dataclass(frozen=True)
class Transfer:
    """A probe trained on the set `train` and scored on the set `test`."""

    train: str
    test: str


@dataclass(frozen=True, eq=False, repr=False)
class LabelledTexts(Shown):
    """Texts with `labels [n]` (bool), in a seeded order."""

    name: str
    texts: tuple[str, ...]
    labels: Tensor

    def split(self) -> tuple[Tensor, Tensor]:
        """Row indices (train, test): of each class the first six tenths and the rest."""
        import torch

        sides = [side.nonzero().flatten() for side in (self.labels, ~self.labels)]
        cuts = [round((1 - TEST_SHARE) * len(side)) for side in sides]
        train = torch.cat([side[:cut] for side, cut in zip(sides, cuts, strict=True)])
        test = torch.cat([side[cut:] for side, cut in zip(sides, cuts, strict=True)])
        return train.sort().values, test.sort().values


def probe_sets(path: Path | None = None) -> tuple[tuple[ProbeSet, ...], tuple[Transfer, ...]]:
    """(sets, transfers) of the list that ships, or of a YAML file like it."""
    from workbench.base.store import read_yaml

    document = read_yaml(path or Path(__file__).parents[1] / "data" / "probe_sets.yaml")
    sets = tuple(ProbeSet(str(one["name"]), str(one["positive"]), str(one.get("concept", ""))) for one in document["sets"])
    return sets, tuple(Transfer(one["train"], one["test"]) for one in document.get("transfers", []))


def labelled_texts(one: ProbeSet, *, n_rows: int, max_characters: int, seed: int) -> LabelledTexts:
    """At most `n_rows` texts of the set, half of them positive, seeded; no text twice, none that an SAE was trained on."""
    import torch

    from workbench.saes.corpus import HELD_OUT_PERCENT, RESERVED_WORDS, Document

    reserved = any(word in one.name.lower() for word in RESERVED_WORDS)
    sides: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for text, target in probe_rows(one.name):
        untrained = reserved or Document.of(text, one.name).bucket < HELD_OUT_PERCENT
        if untrained and hash(text[:BEGINNING]) not in training_beginnings():
            sides[target == one.positive][text[:max_characters]] = None
    both = sides[True].keys() & sides[False].keys()
    random = generator(derive_seed("probe set", one.name, seed))
    n = min(n_rows // 2, *(len(side.keys() - both) for side in sides.values()))
    if n < 10:
        raise WorkbenchError(
            f"the set {one.name} has {n} usable texts a class (target {one.positive!r} against the rest)",
            "at least 10 a class",
            "choose another set or another `positive` in the list of probe sets",
        )
    chosen = {label: _draw([text for text in side if text not in both], n, random) for label, side in sides.items()}
    texts = [(text, label) for label, side in chosen.items() for text in side]
    order = torch.randperm(len(texts), generator=random).tolist()
    return LabelledTexts(one.name, tuple(texts[i][0] for i in order), torch.tensor([texts[i][1] for i in order]))


@functools.cache
def training_beginnings() -> frozenset[int]:
    """Hashes of the first characters of every document of the role that SAEs are trained on; read once, in five seconds."""
    from workbench.saes.corpus import documents

    return frozenset(hash(one.text[:BEGINNING]) for one in documents("sae-probes", "train"))


def _draw(texts: list[str], n: int, random: Any) -> list[str]:
    import torch

    return [texts[i] for i in torch.randperm(len(texts), generator=random)[:n].tolist()]


def probe_rows(name: str) -> Iterator[tuple[str, str]]:
    """(prompt, target) of a set of the asset; an unknown name lists the nearest."""
    import zstandard

    from workbench.models.assets import asset_path

    files = {path.name.removesuffix(".csv.zst"): path for path in Path(asset_path("sae-probes")).rglob("*.csv.zst")}
    if name not in files:
        raise unknown_name("labelled text set", name, files)
    csv.field_size_limit(1 << 30)
    with open(files[name], "rb") as file:
        reader = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8", newline="")
        for row in csv.DictReader(reader):
            if row.get("prompt"):
                yield row["prompt"] or "", str(row.get("target"))
