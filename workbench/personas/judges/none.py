"""No judge: every response stays, none is scored, and everything made from them says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.personas.judges import JudgeItem, Judgement
from workbench.personas.judges.rules import coherence

if TYPE_CHECKING:
    from workbench.personas.traits import Trait


class NoJudge:
    """Leaves every row unjudged; for traits that no offline judge knows, where no endpoint is at hand."""

    name = "none"

    def score(self, items: Sequence[JudgeItem], trait: Trait | str) -> list[Judgement]:
        """One judgement per item: outcome "unjudged", no score, the coherence of the rule."""
        return [Judgement(None, "unjudged", coherence(item.answer)) for item in items]

    def description(self) -> dict[str, Any]:
        """The name alone."""
        return {"name": self.name}
