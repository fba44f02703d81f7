"""The user's side of conversations, written beforehand: work and other talk, turn by turn, whatever the assistant answers.

Four domains as in Lu et al. 2026 (arXiv 2601.10387): coding and writing are ordinary work, in therapy a vulnerable user opens up
more and more, in philosophy the user presses the model about its own nature. Their lengths in words are balanced, because a
longer history moves activations by itself. Also here: requests for harmless role play, one reminder, and sentences that may
steady a prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from workbench.axis.roles import DATA
from workbench.base.display import Shown
from workbench.base.errors import unknown_name
from workbench.base.store import content_hash, read_json
from workbench.personas.fields import Fields, fields

DOMAINS = ("coding", "writing", "therapy", "philosophy")
SCRIPT_SPLITS = ("calibration", "evaluation")
MIN_TURNS = 6


@dataclass(frozen=True, repr=False)
class Script(Shown):
    """What one user says, turn by turn; `split` tells scripts for calibration from those that results are reported on."""

    id: str
    domain: str
    topic: str
    turns: tuple[str, ...]
    split: str

    @property
    def hash(self) -> str:
        """sha256 of the whole script (64 hexadecimal digits)."""
        return content_hash(asdict(self))

    @property
    def n_words(self) -> int:
        """Words of all turns together."""
        return sum(len(turn.split()) for turn in self.turns)


@dataclass(frozen=True)
class BenignRolePlay:
    """A harmless request to play a part: the system message and the user message, to measure over-blocking."""

    id: str
    system: str
    user: str


def load_scripts(*domains: str, split: str | None = None) -> tuple[Script, ...]:
    """The scripts of these domains (default: all four), of one split or of both; 34 in a domain, 4 of them for calibration."""
    for domain in domains:
        if domain not in DOMAINS:
            raise unknown_name("domain", domain, DOMAINS)
    if split is not None and split not in SCRIPT_SPLITS:
        raise unknown_name("split", split, SCRIPT_SPLITS)
    found = (script for domain in domains or DOMAINS for script in _domain(domain))
    return tuple(script for script in found if split in (None, script.split))


def scripts_hash(scripts: Sequence[Script]) -> str:
    """sha256 of all texts of these scripts: what a result depends on."""
    return content_hash([asdict(script) for script in scripts])


def benign_role_play() -> tuple[BenignRolePlay, ...]:
    """Forty harmless requests to play a part."""
    entries = _talk().nested("role_play")
    items = ((identifier, entries.nested(identifier)) for identifier in entries.values)
    return tuple(BenignRolePlay(identifier, item.text("system"), item.text("user")) for identifier, item in items)


def reminder() -> str:
    """One reminder to stay the assistant, to be put into a system message: the plain alternative to an intervention."""
    return _talk().text("reminder")


def steadying_sentences() -> dict[str, str]:
    """Short name -> a sentence that may steady a persona when it is added to its prompt: candidates, to be measured."""
    entries = _talk().nested("steadying")
    return {name: entries.text(name) for name in entries.values}


@functools.cache
def _domain(domain: str) -> tuple[Script, ...]:
    entries = fields(read_json(DATA / "scripts" / f"{domain}.json"), f"{domain}.json").nested("scripts")
    return tuple(_script(entries.nested(identifier), identifier, domain) for identifier in entries.values)


def _script(item: Fields, identifier: str, domain: str) -> Script:
    turns = item.words("turns")
    if len(turns) < MIN_TURNS:
        raise item.wrong(f"it has {len(turns)} turns.", f"At least {MIN_TURNS} user messages.", "Write more turns.")
    return Script(identifier, domain, item.text("topic"), turns, item.choice("split", SCRIPT_SPLITS))


def _talk() -> Fields:
    return fields(read_json(DATA / "talk.json"), "talk.json")
