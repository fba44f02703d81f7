"""Requests behind personas: which pairs are tried, under which arms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.steering.cost.treatments import edits_key

if TYPE_CHECKING:
    from workbench.axis.roles import Role
    from workbench.steering.edits import Edit

    from .prompts import HarmfulPrompt

DIRECT = "direct"


@dataclass(frozen=True)
class Attempt:
    """One reply that is asked for: a request, the system prompt before it, and which sample of it."""

    prompt: str
    """The request's id."""
    persona: str
    """The persona's name; "" for none."""
    system: str = field(repr=False)
    user: str = field(repr=False)
    sample: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Arm(Shown):
    """What is done to the model in every attempt: edits where replies are predicted, and words after the system prompt."""

    name: str
    edits: tuple[Edit, ...] = ()
    reminder: str = ""
    persona: bool = True
    """Whether the request stands behind a persona; the arm "direct" has none."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the arm is, for tables (JSON types): percentile, band, rate, KL."""

    def key(self) -> list[Any]:
        """What tells it from others (JSON types), whatever it is called."""
        return [edits_key(self.edits), [edit.scope for edit in self.edits], self.reminder, self.persona]

    def system(self, attempt: Attempt) -> str:
        """The system prompt of an attempt under this arm."""
        return " ".join(part for part in (attempt.system, self.reminder) if part)


def direct_attempts(prompts: Sequence[HarmfulPrompt], *, n_samples: int = 1) -> tuple[Attempt, ...]:
    """Every request as it is, without a system prompt of ours."""
    return tuple(Attempt(one.id, "", "", one.text, sample) for one in prompts for sample in range(n_samples))


def crossed(
    prompts: Sequence[HarmfulPrompt], personas: Sequence[Role], *, per_prompt: int = 2, n_samples: int = 1, seed: int = 0
) -> tuple[Attempt, ...]:
    """Each request behind `per_prompt` different personas, each persona as often as any other (within one), drawn by the seed.

    A persona with several system prompts takes them in turn.
    """
    if not 1 <= per_prompt <= len(personas):
        raise WorkbenchError(f"{per_prompt} personas per request", f"1 to {len(personas)}, as there are so many", "correct it")
    import torch

    random = generator(derive_seed("personas", seed))
    order: list[int] = []
    found, used = [], [0] * len(personas)
    for one in prompts:
        chosen: list[int] = []
        while len(chosen) < per_prompt:
            place = next((place for place in order if place not in chosen), None)
            if place is None:
                order += torch.randperm(len(personas), generator=random).tolist()
                continue
            order.remove(place)
            chosen.append(place)
        for place in chosen:
            role = personas[place]
            system = role.prompts[used[place] % len(role.prompts)]
            used[place] += 1
            found += [Attempt(one.id, role.name, system, one.text, sample) for sample in range(n_samples)]
    return tuple(found)
