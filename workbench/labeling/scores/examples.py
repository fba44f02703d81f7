"""What a label is scored on: held-out contexts in which the feature fires, and three kinds in which it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from workbench.base.randomness import derive_seed
from workbench.labeling.contexts.reading import Collection, HeldOut
from workbench.labeling.contexts.same_token import token_key
from workbench.labeling.evidence import Context

KINDS = ("random", "neighbours", "same_token")
MISPLACED = "misplaced"
N_PER_KIND = 30


@dataclass(frozen=True)
class Example:
    """A context and the indices of its marked tokens."""

    context: Context
    marks: tuple[int, ...]


@dataclass(frozen=True)
class ExampleSets:
    """The examples of one feature: `positives`, and `negatives` by kind. All from the scoring half."""

    feature: int
    positives: tuple[Example, ...]
    negatives: Mapping[str, tuple[Example, ...]]

    @property
    def n(self) -> dict[str, int]:
        """How many examples there are of each sort."""
        return {"positives": len(self.positives)} | {kind: len(found) for kind, found in self.negatives.items()}


def detection_examples(feature: int, collection: Collection, *, n_per_kind: int = N_PER_KIND) -> ExampleSets:
    """Contexts to tell apart by whether the feature fires in them; their marked token is the peak.

    Negatives, the feature firing nowhere in any of them, at most `n_per_kind` of each kind: "random" contexts at random tokens;
    "neighbours", firing contexts of the nearest features in decoder space, these taken in turns; "same_token", contexts whose
    marked token equals one of the feature's peak tokens up to case: those the collection kept, then what its other windows hold.
    A feature that fires wherever its token occurs has none of these. No (text, marked token) occurs twice.
    """
    positives = collection.held_out.get(feature, ())
    seen: set[tuple[str, int]] = {_place(held.context) for held in positives}
    near = zip_longest(*(collection.held_out.get(other, ()) for other in collection.neighbours.get(feature, ())))
    material: dict[str, Iterable[HeldOut]] = {
        "random": collection.random,
        "neighbours": (held for rank in near for held in rank if held is not None),
        "same_token": chain(collection.same_token.get(feature, ()), _marked_again(feature, collection)),
    }
    negatives = {kind: _silent(feature, material[kind], seen, n_per_kind) for kind in KINDS}
    return ExampleSets(feature, tuple(Example(held.context, (held.context.peak,)) for held in positives), negatives)


def fuzzing_examples(feature: int, collection: Collection, *, n_per_kind: int = N_PER_KIND) -> ExampleSets:
    """Contexts to tell apart by whether the right tokens are marked.

    Positives have every token marked on which the feature fires. Negatives: the three kinds of `detection_examples` with their
    own marked token, and "misplaced": the same firing contexts with as many tokens marked on which it does not fire.
    """
    found = detection_examples(feature, collection, n_per_kind=n_per_kind)
    contexts = [example.context for example in found.positives]
    right = tuple(Example(context, _firing(context)) for context in contexts)
    wrong = (_misplaced(feature, example) for example in right)
    misplaced = tuple(example for example in wrong if example.marks)
    return ExampleSets(feature, right, {**found.negatives, MISPLACED: misplaced[:n_per_kind]})


def peak_tokens(feature: int, collection: Collection) -> set[str]:
    """The feature's peak tokens (`token_key`), of both halves."""
    evidence = collection.evidence.get(feature)
    explaining = (context for context in (evidence.contexts if evidence else ()) if not context.is_withheld)
    contexts = chain(explaining, (held.context for held in collection.held_out.get(feature, ())))
    return {key for key in (token_key(context.tokens[context.peak]) for context in contexts) if key}


def _silent(feature: int, found: Iterable[HeldOut], seen: set[tuple[str, int]], n: int) -> tuple[Example, ...]:
    """The first `n` contexts without the feature that were not seen yet; notes them as seen."""
    chosen: list[Example] = []
    for held in found:
        if len(chosen) == n:
            break
        if feature not in held.active and _place(held.context) not in seen:
            seen.add(_place(held.context))
            chosen.append(Example(held.context, (held.context.peak,)))
    return tuple(chosen)


def _marked_again(feature: int, collection: Collection) -> Iterator[HeldOut]:
    """Windows of the collection without the feature in which one of its peak tokens occurs, marked there."""
    keys = peak_tokens(feature, collection)
    for held in chain(collection.random, *collection.held_out.values()):
        if feature in held.active:
            continue
        places = (i for i, token in enumerate(held.context.tokens) if token_key(token) in keys)
        if (place := next(places, None)) is not None:
            silent = (0.0,) * len(held.context.tokens)
            position = held.context.position - held.context.peak + place
            yield HeldOut(replace(held.context, peak=place, values=silent, position=position), held.active)


def _place(context: Context) -> tuple[str, int]:
    return context.text, context.peak


def _firing(context: Context) -> tuple[int, ...]:
    firing = {index for index, value in enumerate(context.values) if value > 0}
    return tuple(sorted(firing | {context.peak}))


def _misplaced(feature: int, example: Example) -> Example:
    """As many marks on tokens that say something and on which the feature is silent; the same ones every time."""
    context = example.context
    silent: Sequence[int] = [i for i, t in enumerate(context.tokens) if i not in example.marks and t.strip()]
    place = (context.document, context.position)
    order = sorted(silent, key=lambda index: derive_seed("misplaced", feature, *place, index))
    return Example(context, tuple(sorted(order[: len(example.marks)])))
