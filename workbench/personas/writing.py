"""A trait written by a chat model from one sentence: part by part, each checked, and all of it or nothing on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.store import read_yaml
from workbench.models.endpoints import ChatEndpoint, EndpointConfig
from workbench.personas.drafts import Drafting, Item, Part, forbidden_words
from workbench.personas.trait_files import free_folder, write_trait
from workbench.personas.traits import (
    PAIR_SPLITS,
    Category,
    InstructionTriple,
    Question,
    ReplyPair,
    Trait,
    Trap,
)

N_CONTRAST, PER_CONTRAST_REQUEST = 40, 10
N_KINDS, PER_KIND = 3, 12
N_REQUESTS = 7 + N_CONTRAST // PER_CONTRAST_REQUEST + N_KINDS
_TIMEOUT_SECONDS = 300.0  # long answers take minutes
_FILE = Path(__file__).parent / "data" / "writing" / "parts.yaml"
# Spread over the kinds of question, which stand together: every split gets the same mixture (20, 10 and 10 of 40).
_SPLITS = ("extraction", "verification", "extraction", "sealed")
_TRAPS = ("talk_about_trait", "trait_in_mild_words", "strong_words_without_trait")
_REPLY = (5, 30)
_PAIR = {"prompt": (2, 25)}
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Written:
    """A trait that a model wrote: its folder, the trait, and how often parts had to be asked for again."""

    folder: Path
    trait: Trait
    asked_again: dict[str, int]


def write_new_trait(
    name: str,
    wish: str,
    *,
    out: str | Path = "traits",
    model: str | None = None,
    base_url: str | None = None,
    sample: int = 0,
    cache_folder: Path | None = None,
    **options: Any,
) -> Written:
    """Let a chat model write the trait `name` as `wish` describes it, into `<out>/<name>`.

    model, base_url: default to the settings judge_model and base_url; the key comes from the environment. sample:
    another number gives other answers; with the same number answered requests are read from the cache. options: of
    `EndpointConfig`. Raises WorkbenchError for a folder that exists, a refused request, or a part that is still wrong
    after four answers; then nothing is written.
    """
    free_folder(name, out)
    if not wish.strip():
        raise WorkbenchError(
            "The description is empty.", "A sentence on the trait.", 'Give it with --describe "...".'
        )
    config = EndpointConfig.from_settings(
        model=model, base_url=base_url, **{"timeout_seconds": _TIMEOUT_SECONDS, **options}
    )
    with (
        ChatEndpoint(config, cache_folder) as endpoint,
        track(f"writing {name}", N_REQUESTS, "parts") as step,
    ):
        drafting = Drafting(endpoint, _texts()["system"], _texts()["again"], sample=sample)
        trait = _Writer(name, " ".join(wish.split()), drafting, step).trait(config.model)
    return Written(write_trait(trait, out), trait, {part: n for part, n in drafting.repeats.items() if n})


@dataclass
class _Writer:
    """Asks for the parts in order; later ones are told what earlier ones decided."""

    name: str
    wish: str
    drafting: Drafting
    step: Callable[[], None]
    known: dict[str, str] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)

    def trait(self, author: str) -> Trait:
        profile = self._profile()
        instructions = self._ask("instructions", 5, dict.fromkeys(("positive", "neutral", "negative"), (6, 60)),
                                 unique=("positive", "neutral", "negative"), clean=("neutral",))  # fmt: skip
        questions = self._ask("questions", 40, {"text": (3, 40)}, unique=("text",), clean=("text",))
        (rubric,) = self._ask("rubric", 1, {"shows": (8, 90)}, lists={"signs": (3, 8), "not": (3, 8)})
        taxonomy = _categories(self._taxonomy())
        return Trait(
            name=self.name,
            adjective=profile["adjective"],
            opposite=profile["opposite"],
            description=profile["description"],
            instructions=tuple(
                InstructionTriple(f"i{i}", **item) for i, item in enumerate(instructions, start=1)
            ),
            questions=tuple(_questions(item["text"] for item in questions)),
            rubric=_rubric(profile["adjective"], rubric),
            taxonomy=taxonomy,
            contrast_pairs=self._contrast(taxonomy),
            control_pairs=self._controls(),
            traps=self._traps(),
            author={"kind": "model", "name": author},
        )

    def _ask(
        self,
        name: str,
        n: int,
        texts: dict[str, tuple[int, int]],
        *,
        places: dict[str, str] | None = None,
        **rules: Any,
    ) -> list[Item]:
        places = {
            "name": self.name,
            "wish": self.wish,
            "used": self._told_used(),
            **self.known,
            **(places or {}),
        }
        parts = [_texts()["context"], _texts()["known"] if self.known else "", _texts()["parts"][name]]
        prompt = "\n".join(Template(text).substitute(places) for text in parts if text)
        items = self.drafting.ask(Part(name, prompt, n, texts, **rules))
        self.step()
        return items

    def _told_used(self) -> str:
        return f"Other prompts than these: {' / '.join(self.used)}" if self.used else ""

    def _profile(self) -> Item:
        texts = {"adjective": (1, 3), "opposite": (1, 3), "description": (15, 140)}
        (profile,) = self._ask("profile", 1, texts, lists={"words": (3, 20)}, check=_different)
        words = [word for word in profile["words"] if len(word) > 2]
        names = (profile["adjective"], self.name)
        self.drafting.forbidden = forbidden_words(names, [profile["opposite"], *words])
        self.known = {name: profile[name] for name in texts}
        self.known["words"] = ", ".join(dict.fromkeys([*names, profile["opposite"], *words]))
        return profile

    def _taxonomy(self) -> list[Item]:
        texts = {"id": (1, 1), "name": (1, 6), "description": (4, 50)}
        return self._ask("taxonomy", 8, texts, lists={"words": (8, 24)}, check=_category_faults)

    def _contrast(self, taxonomy: Sequence[Category]) -> tuple[ReplyPair, ...]:
        subs = [category for category in taxonomy if category.kind == "sub_trait"]
        # Two in a row, so that each sub-trait has as many select as sealed pairs.
        shown = [subs[i // 2 % len(subs)] for i in range(N_CONTRAST)]
        pairs = []
        for start in range(0, N_CONTRAST, PER_CONTRAST_REQUEST):
            wanted = shown[start : start + PER_CONTRAST_REQUEST]
            lines = [f"{i}: {one.name} ({one.description})" for i, one in enumerate(wanted, start=1)]
            items = self._pairs(
                "contrast", len(wanted), ("trait", "opposite"), 1, {"shown": "\n".join(lines)}, ("prompt",)
            )
            pairs += [_pair(f"c{start + i:02d}", "contrast", item, sub=one.id, number=i)
                      for i, (item, one) in enumerate(zip(items, wanted, strict=True), start=1)]  # fmt: skip
        return tuple(pairs)

    def _controls(self) -> tuple[ReplyPair, ...]:
        sides = ("first", "second")
        pairs: list[ReplyPair] = []
        for item in self._ask("kinds", N_KINDS, dict.fromkeys(sides, (1, 3)), unique=sides, clean=sides):
            kind = _kind(item)
            made = self._pairs(
                "controls", PER_KIND, sides, 1, {side: item[side] for side in sides}, ("prompt", *sides)
            )
            pairs += [_pair(f"x{len(pairs) + i:02d}", kind, {**one, "trait": one["first"], "opposite": one["second"]}, number=i)
                      for i, one in enumerate(made, start=1)]  # fmt: skip
        return tuple(pairs)

    def _pairs(
        self,
        name: str,
        n: int,
        sides: tuple[str, str],
        most: int,
        places: dict[str, str],
        clean: tuple[str, ...],
    ) -> list[Item]:
        texts = {**_PAIR, **dict.fromkeys(sides, _REPLY)}
        items = self._ask(
            name, n, texts, places=places, unique=tuple(texts), clean=clean, matched=(*sides, most)
        )
        self.used += [item["prompt"] for item in items]
        return items

    def _traps(self) -> tuple[Trap, ...]:
        items = self._pairs("traps", 12, ("trait", "other"), 3, {}, ())
        return tuple(Trap(f"t{i + 1:02d}", _TRAPS[i // 4], **item) for i, item in enumerate(items))


@cache
def _texts() -> Any:
    return read_yaml(_FILE)


def _different(item: Item, _: Sequence[Item]) -> Iterable[str]:
    if item["adjective"].casefold() == item["opposite"].casefold():
        yield "'adjective' and 'opposite' are the same"
    if not all(re.fullmatch(r"[^\W\d_][\w' -]*", item[name]) for name in ("adjective", "opposite")):
        yield "'adjective' and 'opposite' have to be words"


def _category_faults(item: Item, accepted: Sequence[Item]) -> Iterable[str]:
    reserved = {entry["id"] for entry in _texts()["common"]} | {other["id"] for other in accepted}
    if not _IDENTIFIER.fullmatch(item["id"]) or item["id"] in reserved:
        yield f"the id '{item['id']}' is taken, or not lower-case letters, digits and _"
    elsewhere = {word.casefold() for other in accepted for word in other["words"]}
    if both := sorted(elsewhere & {word.casefold() for word in item["words"]}):
        yield f"these words stand in another list too: {', '.join(both)}"


def _categories(items: Sequence[Item]) -> tuple[Category, ...]:
    own = [
        Category(
            item["id"],
            "sub_trait",
            item["name"],
            item["description"],
            True,
            tuple(map(str.lower, item["words"])),
        )
        for item in items
    ]
    taken = {word for category in own for word in category.words}
    common = [
        Category(**{**entry, "words": tuple(word for word in entry["words"] if word not in taken)})
        for entry in _texts()["common"]
    ]
    return (*own, *common)


def _questions(texts: Iterable[str]) -> list[Question]:
    splits: dict[str, list[str]] = {split: [] for split in dict.fromkeys(_SPLITS)}
    for i, text in enumerate(texts):
        splits[_SPLITS[i % len(_SPLITS)]].append(text)
    return [
        Question(f"{split[0]}{i:02d}", text, split)
        for split, chosen in splits.items()
        for i, text in enumerate(chosen, start=1)
    ]


def _rubric(adjective: str, item: Item) -> str:
    signs, excluded = ("\n".join(f"- {text}" for text in item[name]) for name in ("signs", "not"))
    places = {"adjective": adjective, "shows": item["shows"], "signs": signs, "excluded": excluded}
    return Template(_texts()["rubric"]).substitute(places).strip()


def _kind(item: Item) -> str:
    words = (re.sub(r"\W+", "_", item[side].lower()).strip("_") for side in ("first", "second"))
    return "_".join(words)


def _pair(identifier: str, kind: str, item: Item, *, number: int, sub: str | None = None) -> ReplyPair:
    texts = (item[name] for name in ("prompt", "trait", "opposite"))
    return ReplyPair(identifier, kind, *texts, split=PAIR_SPLITS[(number - 1) % 2], sub=sub)
