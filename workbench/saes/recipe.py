"""A training file: the model, the data mix, and the SAEs to train on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import read_yaml
from workbench.models.hookpoints import HookPoint
from workbench.saes.config import TrainingConfig

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
RESERVED = ("training", "activations", "chats", "recipe.json")
_LEAST = {"chats": 0, "trait_samples": 0, "characters": 1, "per_source": 1, "cut": 1, "max_tokens_per_document": 1,
          "max_new_tokens": 1, "chat_batch": 1, "batch_tokens": 1}  # fmt: skip
PLACES = ("disk", "memory")
DATA = ("all", "corpus")
STORED = ("float32", "float16", "bfloat16", "float8_e4m3fn")
WEIGHTS = ("own", "shuffled")


@dataclass(frozen=True)
class DataMix:
    """What the SAEs are trained on.

    After the persona vectors paper's SAE (arXiv 2507.21509, appendix M): corpus, chats of the model itself under many
    system prompts, rollouts of the traits' *extraction* questions, and a little trait-bearing text outside any chat.
    """

    corpus: str = "sae-probes"  # a source of saes.corpus, or a path to a .txt / .jsonl file
    characters: int = 13_000_000  # of corpus text in all
    per_source: int = 450_000  # characters of one labelled set at most (a file of yours is one source without a limit)
    cut: int = 1_100  # characters of one document at most
    max_tokens_per_document: int = 256
    chats: int = 1_200  # conversations of the model itself under the prompts of chat_prompts.yaml
    traits: tuple[str, ...] = ("evil",)  # extraction questions x instruction triples, all three arms
    rollouts: str = ""  # folder of finished extractions (runs) whose rollouts on those questions are read; "" = sample anew
    trait_samples: int = 1  # rollouts per question, instruction and arm, when sampled anew
    trait_text: float = 0.1  # chance that a rollout's answer is also read as plain text, outside the chat format
    max_new_tokens: int = 64
    system_dropout: float = 0.8  # chance that a chat is read without its system prompt
    chat_batch: int = 64
    stored_dtype: str = "auto"  # of the activations: bfloat16 where the model runs in it, else float16
    keep_special: bool = True  # keep chat delimiters and other special tokens
    batch_tokens: int = 2_048  # positions of one capturing pass

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise WorkbenchError(f"data.{name} is {getattr(self, name)}", f"{least} or more", "mend the config")
        for name in ("system_dropout", "trait_text"):
            if not 0 <= getattr(self, name) <= 1:
                raise WorkbenchError(
                    f"data.{name} is {getattr(self, name)}", "a probability between 0 and 1", "mend the config"
                )
        if self.stored_dtype not in ("auto", "float16", "bfloat16", "float32"):
            raise unknown_name("data.stored_dtype", self.stored_dtype, ("auto", "float16", "bfloat16", "float32"))


@dataclass(frozen=True)
class SaePlan:
    """One SAE of a recipe: its site, its share of the data, and how it is trained."""

    name: str
    hook: str
    data: str  # all, or corpus: no chats, no rollouts
    weights: str  # own, or shuffled: a control without what the model learned, on the same tokens
    target_l0: float
    stored_dtype: str
    training: TrainingConfig

    def __post_init__(self) -> None:
        HookPoint.parse(self.hook)
        for key, known in (("data", DATA), ("weights", WEIGHTS), ("stored_dtype", STORED)):
            if getattr(self, key) not in known:
                raise unknown_name(f"{key} of SAE {self.name}", getattr(self, key), known)
        if not 0 < self.target_l0 <= self.training.d_sae:
            raise WorkbenchError(
                f"target_l0 of SAE {self.name} is {self.target_l0}",
                f"a number between 0 and d_sae = {self.training.d_sae}",
                "mend the config",
            )


@dataclass(frozen=True)
class Recipe:
    """A training file. Without `saes` it makes one SAE at `hook` as `training` says; with them, each differs by its keys."""

    model: str = "smollm2-135m-instruct"
    hook: str = "blocks.15.hook_resid_post"
    capture_dtype: str = "bfloat16"  # forward passes that fill the activation store; float32 where bfloat16 is slow
    activations: str = "disk"  # or memory: kept on the model's device, for a large GPU
    data: DataMix = field(default_factory=DataMix)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    stored_dtype: str = "float16"  # of the saved weights; float8_e4m3fn halves them
    target_l0: float = 0.0  # the saved threshold gives this mean number of active features on held-out text; 0 = k
    saes: tuple[dict[str, Any], ...] = ()  # each: name, any of SaePlan's other keys, and any of training's
    seed: int = 0

    def __post_init__(self) -> None:
        if self.activations not in PLACES:
            raise unknown_name("activations", self.activations, PLACES)
        names = [plan.name for plan in self.plans]
        if len({name.casefold() for name in names}) != len(names):
            raise WorkbenchError(f"SAE names {names}", "every name once", "mend saes in the config")

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Read a YAML training file; unknown keys and wrong types are errors that name the key."""
        document = read_yaml(path)
        if not isinstance(document, dict):
            raise WorkbenchError(
                f"{path} is not a mapping", "keys model, hook, data, training", "see docs/train_an_sae.md"
            )
        return _build(Recipe(), document, where=str(path))

    @property
    def hook_point(self) -> HookPoint:
        """The site of an SAE that names none."""
        return HookPoint.parse(self.hook)

    @property
    def plans(self) -> tuple[SaePlan, ...]:
        """The SAEs, each with its own settings filled in."""
        return tuple(self._plan(entry) for entry in self.saes or ({"name": "sae"},))

    def plans_on(self, weights: str) -> tuple[SaePlan, ...]:
        """The SAEs of the model as it is, or of the one with shuffled weights."""
        return tuple(plan for plan in self.plans if plan.weights == weights)

    def _plan(self, entry: dict[str, Any]) -> SaePlan:
        if not isinstance(entry, dict):
            raise WorkbenchError(f"saes holds {entry!r}", "a mapping with a name", "see docs/train_an_sae.md")
        own = dict(entry)
        name = own.pop("name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.split("/")[0].casefold() in RESERVED:
            raise WorkbenchError(
                f"an SAE of the recipe is named {name!r}",
                "a folder name of letters, digits, '-', '_' and '.' (parts joined by '/'), not training, activations or chats",
                "give it a name",
            )
        hook, data, weights = own.pop("hook", self.hook), own.pop("data", "all"), own.pop("weights", "own")
        target, stored = own.pop("target_l0", self.target_l0), own.pop("stored_dtype", self.stored_dtype)
        training = _build(self.training, own, where=f"SAE {name}")
        if isinstance(target, bool) or not isinstance(target, (int, float)):
            raise WorkbenchError(f"target_l0 of SAE {name} is {target!r}", "a number", "mend the config")
        if not isinstance(hook, str):
            raise WorkbenchError(f"hook of SAE {name} is {hook!r}", "a site such as blocks.15.hook_resid_post", "mend the config")
        return SaePlan(name, hook, data, weights, float(target or training.k), stored, training)

    def swept(self, grid: Mapping[str, Sequence[Any]]) -> Recipe:
        """The recipe with every SAE in every combination of the values: {"k": [16, 32], "seed": [0, 1]} makes four of each.

        Keys are those of `saes`; the names say the values ("sae-k16-seed0").
        """
        entries = []
        for entry in self.saes or ({"name": "sae"},):
            for values in product(*grid.values()):
                chosen = dict(zip(grid, values, strict=True))
                suffix = "-".join(f"{key}{value}" for key, value in chosen.items())
                entries.append({**entry, **chosen, "name": f"{entry['name']}-{suffix}"})
        return replace(self, saes=tuple(entries))

    def to_json(self) -> dict[str, Any]:
        """Every setting."""
        return asdict(self)


def _number(value: Any) -> Any:
    """A float from a whole number, and from "2e-3", which YAML reads as text (it wants 2.0e-3)."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _build(base: Any, document: dict[str, Any], *, where: str) -> Any:
    """`base` with the document's values; lists become tuples, whole numbers floats where those are expected."""
    if not isinstance(document, dict):
        raise WorkbenchError(f"{where} is {document!r}", "a mapping of keys to values", "mend the config")
    known = {f.name: f for f in fields(base)}
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            raise unknown_name(f"key in {where}", key, known)
        default = getattr(base, key)
        if isinstance(default, (DataMix, TrainingConfig)):
            values[key] = _build(default, {} if value is None else value, where=f"{where}: {key}")
            continue
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if isinstance(default, float) and not isinstance(value, bool):
            value = _number(value)
        number = isinstance(default, int) and isinstance(value, float) and key == "k"
        if not number and (not isinstance(value, type(default)) or isinstance(value, bool) != isinstance(default, bool)):
            raise WorkbenchError(
                f"{where}: {key} is {value!r}", f"a {type(default).__name__} such as {default!r}", "mend the config"
            )
        values[key] = value
    return replace(base, **values)
