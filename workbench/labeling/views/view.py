"""What is known of one feature, in one value that shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import plain
from workbench.labeling.evidence import Context
from workbench.labeling.views.values import (
    Ablation,
    Direction,
    Partner,
    Tally,
    Usual,
    ablation_from,
    direction_from,
    pair,
    usual_from,
)

SCHEMA = 3
_READABLE = (2, SCHEMA)  # schema 2 had no histogram


@dataclass(frozen=True, repr=False)
class FeatureView(Shown):
    """One feature of one SAE, seen from all sides. What could not be had is empty, and `missing` says why.

    `sae` {id, weights_hash, hook} and `model` (name) say whose feature it is; `density`, `max_activation` and `n_tokens` are as
    in `FeatureEvidence`. `contexts` are those of the explaining half per kind of source ("corpus", "chat", "rollouts"), strongest
    first. `direction` holds neighbours and lens tokens, `usual` what they are for other features. `histogram` counts its firings
    per occupied bin of activations as (low, high, count); a bin is a quarter of a doubling wide. `by_position`, `by_role` and
    `by_trait` say where it fires (`by_trait`: trait -> arms), `partners` which features fire on the same tokens, most above
    expectation first, and `ablation` what taking it out does to the next token.
    """

    feature: int
    sae: Mapping[str, str]
    model: str
    density: float | None
    max_activation: float | None
    n_tokens: int
    contexts: Mapping[str, tuple[Context, ...]]
    direction: Direction
    usual: Usual
    histogram: tuple[tuple[float, float, int], ...] = ()
    by_position: tuple[Tally, ...] = ()
    by_role: tuple[Tally, ...] = ()
    by_trait: Mapping[str, tuple[Tally, ...]] = field(default_factory=dict)
    partners: tuple[Partner, ...] = ()
    ablation: Ablation | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The whole view as JSON types; `from_dict` reads it back."""
        return plain({"kind": "feature_view", "schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> FeatureView:
        """What `to_dict` gave. Raises WorkbenchError for another kind of document, or one of another schema."""
        if document.get("kind") != "feature_view" or document.get("schema") not in _READABLE:
            raise WorkbenchError(
                f"a document of kind {document.get('kind')!r}, schema {document.get('schema')!r}",
                f"a feature_view of schema {SCHEMA}",
                "make the view again (`workbench features show --json`)",
            )
        values: dict[str, Any] = {k: v for k, v in document.items() if k not in ("kind", "schema")}
        try:
            return cls(**{**values, **_parts(values)})
        except (KeyError, TypeError, AttributeError) as error:
            raise WorkbenchError(
                f"a feature view that is incomplete ({error})", "what `to_dict` writes", "make the view again"
            ) from error

    def without_foreign_text(self) -> FeatureView:
        """The same view without the text of sources that may not be passed on."""
        kept = {
            kind: tuple(context if context.is_redistributable else context.withheld() for context in listed)
            for kind, listed in self.contexts.items()
        }
        return replace(self, contexts=kept)


class FeatureViews(Shown, list[FeatureView]):
    """Views of several features, in the order asked: a list that shows one line per feature."""

    def __repr__(self) -> str:
        return f"FeatureViews of {', '.join(str(view.feature) for view in self[:20])}{' …' if len(self) > 20 else ''}"


def _parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested values of a plain mapping."""
    ablation = values["ablation"]
    return {
        "contexts": {kind: tuple(map(_context, listed)) for kind, listed in values["contexts"].items()},
        "direction": direction_from(values["direction"]),
        "usual": usual_from(values["usual"]),
        "histogram": tuple((low, high, n) for low, high, n in values.get("histogram", ())),
        "by_position": _tallies(values["by_position"]),
        "by_role": _tallies(values["by_role"]),
        "by_trait": {trait: _tallies(rows) for trait, rows in values["by_trait"].items()},
        "partners": tuple(Partner(**row) for row in values["partners"]),
        "ablation": None if ablation is None else ablation_from(ablation),
    }


def _context(row: Mapping[str, Any]) -> Context:
    return Context(**{**row, "tokens": tuple(row["tokens"]), "values": tuple(row["values"])})


def _tallies(rows: Any) -> tuple[Tally, ...]:
    return tuple(Tally(**{**row, "interval": pair(row["interval"])}) for row in rows)
