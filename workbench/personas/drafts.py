"""Numbered items asked from a chat endpoint in JSON, checked one by one; what is wrong is asked again with the faults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.models.endpoints import ChatEndpoint
from workbench.models.transport import redacted
from workbench.personas.fields import TO_BE_FILLED

N_AGAIN = 3
MAX_TOKENS, TEMPERATURE = 6000, 0.7
_MAX_TOLD = 40  # faults that are told to the model at once
Item = dict[str, Any]
Limits = tuple[int, int]


@dataclass(frozen=True)
class Part:
    """One request for `n` items, and what each has to satisfy."""

    name: str
    prompt: str
    n: int
    texts: Mapping[str, Limits]
    """Text field -> its least and greatest number of words."""
    lists: Mapping[str, Limits] = field(default_factory=dict)
    """List field -> how many texts it may hold."""
    unique: tuple[str, ...] = ()
    """Text fields that may repeat no other text of the whole draft."""
    clean: tuple[str, ...] = ()
    """Text fields in which no forbidden word may stand."""
    matched: tuple[str, str, int] | None = None
    """Two text fields, and by how many words they may differ."""
    check: Callable[[Item, Sequence[Item]], Iterable[str]] | None = None
    """Further faults of an item, given the items that are accepted already."""


@dataclass
class Drafting:
    """A draft in the making: asks for its parts, remembers what was said, and counts what had to be asked again.

    `again` is the request for corrections, with the places $faults and $numbers.
    """

    endpoint: ChatEndpoint
    system: str
    again: str
    sample: int = 0
    forbidden: re.Pattern[str] | None = None
    repeats: dict[str, int] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def ask(self, part: Part) -> list[Item]:
        """The part's items in order, every one without a fault.

        Items that were good stay; the others are asked for again at most N_AGAIN times, then it is a WorkbenchError
        with the faults that were left. Raises EndpointError when the endpoint does not answer.
        """
        good: dict[int, Item] = {}
        opening = [{"role": "system", "content": self.system}, {"role": "user", "content": part.prompt}]
        messages, faults = opening, [""]
        for attempt in range(1 + N_AGAIN):
            reply = redacted(self._reply(messages, attempt))
            faults = list(self._take(reply, part, good))
            self.repeats[part.name] = self.repeats.get(part.name, 0) + (attempt > 0)
            if len(good) == part.n:
                return [good[number] for number in range(1, part.n + 1)]
            missing = [number for number in range(1, part.n + 1) if number not in good]
            messages = [
                *opening,
                {"role": "assistant", "content": reply or "{}"},
                self._complaint(faults, missing),
            ]
        raise WorkbenchError(
            f"{self.endpoint.config.model} wrote no usable {part.name} in {1 + N_AGAIN} answers: {'; '.join(faults[:5])}",
            f"{part.n} items of {part.name} without faults",
            f"run again with --sample {self.sample + 1} for other answers, another --endpoint-model, or a plainer --describe",
        )

    def _reply(self, messages: Sequence[Mapping[str, str]], attempt: int) -> str:
        # A wrong answer that comes again word for word makes the same conversation: the cache may not answer that.
        sample = self.sample * (1 + N_AGAIN) + attempt
        return self.endpoint.chat(
            messages, max_tokens=MAX_TOKENS, temperature=TEMPERATURE, sample=sample
        ).text

    def _complaint(self, faults: Sequence[str], missing: Sequence[int]) -> dict[str, str]:
        told = "\n".join(f"- {fault}" for fault in faults[:_MAX_TOLD])
        numbers = ", ".join(map(str, missing))
        return {"role": "user", "content": self.again.replace("$faults", told).replace("$numbers", numbers)}

    def _take(self, reply: str, part: Part, good: dict[int, Item]) -> Iterable[str]:
        """Put the good items of a reply into `good`; yields the faults of the others."""
        items = _items(reply)
        if isinstance(items, str):
            yield items
            return
        missing = [number for number in range(1, part.n + 1) if number not in good]
        by_order = dict(enumerate(missing)) if len(items) == len(missing) else {}
        named: set[int] = set()
        for index, item in enumerate(items):
            number = _number(item, by_order.get(index)) if isinstance(item, dict) else None
            if number not in missing or number in named:
                continue  # beyond what was asked, or accepted already
            named.add(number)
            value, faults = self._checked(item, part, list(good.values()))
            yield from (f"item {number}: {fault}" for fault in faults)
            if not faults:
                good[number] = value
                self._taken |= {_plain(value[name]) for name in part.unique}
        yield from (f"item {number} is missing" for number in missing if number not in named)

    def _checked(self, item: Item, part: Part, accepted: Sequence[Item]) -> tuple[Item, list[str]]:
        value = {name: item.get(name) for name in (*part.texts, *part.lists)}
        faults = [fault for name, limits in part.texts.items() for fault in _text_faults(value, name, limits)]
        faults += [
            fault for name, limits in part.lists.items() for fault in _list_faults(value, name, limits)
        ]
        if not faults:
            faults = [*self._repeated(value, part), *self._leaks(value, part), *_lengths(value, part)]
            faults += [] if part.check is None else part.check(value, accepted)
        return value, faults

    def _repeated(self, value: Item, part: Part) -> Iterable[str]:
        here: set[str] = set()
        for name in part.unique:
            if (text := _plain(value[name])) in self._taken | here:
                yield f"'{name}' repeats another text: {value[name][:60]}"
            here.add(text)

    def _leaks(self, value: Item, part: Part) -> Iterable[str]:
        for name in part.clean:
            if self.forbidden and (found := self.forbidden.search(value[name])):
                yield f"'{name}' holds the forbidden word '{found.group()}'"


def forbidden_words(names: Iterable[str], words: Iterable[str]) -> re.Pattern[str]:
    """A pattern of the words that would give a trait away: `names` with everything that shares their stem, `words` with
    their plain endings.

    >>> forbidden_words(["optimistic"], ["hope"]).findall("Optimism is hopes, not a hopscotch.")
    ['Optimism', 'hopes']
    """
    stems = [rf"{_spaced(name[: max(5, len(name) - 3)])}\w*" for name in names]
    whole = [rf"{_spaced(word)}(?:s|es|ed|d|ing|ly|ness)?" for word in words]
    return re.compile(rf"\b(?:{'|'.join([*stems, *whole])})\b", re.IGNORECASE)


def _spaced(name: str) -> str:
    return re.sub(r"(?:\\?[-_ ])+", "[-_ ]?", re.escape(name.strip()))


def _items(reply: str) -> list[Any] | str:
    """The items of a reply, or what is wrong with it; text around the object (a code fence, say) does no harm."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        value = json.loads(reply[start : end + 1]) if start >= 0 else None
    except (ValueError, RecursionError) as error:
        return f"the answer is not valid JSON ({error}); send one complete object"
    items = value.get("items") if isinstance(value, dict) else None
    return items if isinstance(items, list) else 'the answer is not an object with a list under "items"'


def _number(item: Item, otherwise: int | None) -> Any:
    number = item.get("n", otherwise)
    return int(number) if isinstance(number, str) and number.isdecimal() else number


def _text_faults(value: Item, name: str, limits: Limits) -> Iterable[str]:
    """Faults of a text field; a sound one is left with single spaces."""
    text = value[name]
    if not isinstance(text, str) or not text.strip():
        yield f"'{name}' is no text"
        return
    value[name] = text = " ".join(text.split())
    if "{" in text or "}" in text or not text.isprintable() or text.startswith(TO_BE_FILLED):
        yield f"'{name}' holds a curly brace or another character that has no place in it"
    n_words, (least, most) = len(text.split()), limits
    if not least <= n_words <= most:
        yield f"'{name}' has {n_words} words, not {least} to {most}"


def _list_faults(value: Item, name: str, limits: Limits) -> Iterable[str]:
    listed, (least, most) = value[name], limits
    if not isinstance(listed, list) or not least <= len(listed) <= most:
        yield f"'{name}' is no list of {least} to {most} texts"
        return
    entries = {str(index): text for index, text in enumerate(listed)}
    faults = [fault for index in entries for fault in _text_faults(entries, index, (1, 40))]
    if faults or len(set(map(_plain, entries.values()))) < len(entries):
        yield f"'{name}' holds an entry that is empty, no text, too long, or there twice"
    value[name] = list(entries.values())


def _lengths(value: Item, part: Part) -> Iterable[str]:
    if part.matched is None:
        return
    first, second, most = part.matched
    counts = [len(value[name].split()) for name in (first, second)]
    if abs(counts[0] - counts[1]) > most:
        yield f"'{first}' has {counts[0]} words and '{second}' has {counts[1]}; they may differ by {most} at most"


def _plain(text: Any) -> str:
    return " ".join(str(text).split()).casefold()
