"""Displays of models, SAEs and their cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.reports.displays.frame import Display, Listing, ends, listing, number
from workbench.reports.svg import percent

if TYPE_CHECKING:
    from workbench.models.catalogue import Asset
    from workbench.models.model import Model
    from workbench.saes.evaluation.card import EvaluationCard
    from workbench.saes.evaluation.fitness import Fitness
    from workbench.saes.evaluation.gate import Gate
    from workbench.saes.interface import SparseAutoencoder
    from workbench.saes.registry import SaeEntry

_MARKS = {"good": "● good", "fair": "▲ fair", "poor": "■ poor", "unknown": "○ unknown"}


def model_display(model: Model) -> Display:
    """Size, place and identity."""
    rows = [
        ("blocks", model.n_blocks), ("d_model", model.d_model), ("vocabulary", model.vocab_size), ("type", str(model.dtype)),
        ("device", str(model.device)), ("from", model.source),
    ]  # fmt: skip
    return Display(f"Model {model.name}", tables=[listing(("what", "value"), [(k, str(v)) for k, v in rows])])


def sae_display(sae: SparseAutoencoder) -> Display:
    """The SAE's measured fitness, with the light and its thresholds; the gate's complaints beside it."""
    from workbench.saes.evaluation.gate import check_fitness

    gate, lights = check_fitness(sae), fitness(sae.card)
    size = f"{sae.architecture}, {sae.d_model:,} to {sae.d_sae:,} features, at {sae.hook} of {sae.model_name}"
    return Display(f"SAE {sae.id}", [f"{size}; L0 {number(sae.card.get('l0'))}."], [lights], notes=gate.failures)


def fitness(card: Mapping[str, Any]) -> Listing:
    """The figures of a card with their light and its thresholds."""
    from workbench.reports.shares import finite
    from workbench.reports.verdict import SAE_THRESHOLDS

    lights = [rule.light(finite(card.get(rule.key))) for rule in SAE_THRESHOLDS]
    rows = [(x.name, x.shown, _MARKS.get(x.level, x.level), x.rule) for x in lights]
    return listing(("measure", "value", "light", "thresholds"), rows)


def saes_display(entries: Iterable[SaeEntry]) -> Display:
    """The shelf, one line per SAE."""
    columns = ("SAE", "features", "variance explained", "L0", "loss recovered", "dead")
    keys = ("variance_explained", "l0", "ce_recovered", "dead_share")
    rows = [(one.id, one.d_sae, *(number(one.card.get(key)) for key in keys)) for one in entries]
    return Display(f"{len(rows)} SAEs on the shelf", tables=[listing(columns, rows, most=30)])


def assets_display(assets: Iterable[Asset]) -> Display:
    """What can be fetched, one line each."""
    rows = [(one.name, one.kind, f"{one.size / 2**20:,.0f} MiB", one.licence, one.source) for one in assets]
    title = f"{len(rows)} assets that can be fetched"
    return Display(title, tables=[listing(("name", "kind", "download", "licence", "what"), rows, most=40)])


def fitness_display(found: Fitness) -> Display:
    """The figures of one set of tokens."""
    rows = [
        ("variance explained", found.variance_explained), ("L0, features on a token", found.l0),
        ("loss recovered", found.ce_recovered), ("loss as it is, nats per token", found.ce_clean),
        ("  with the reconstruction", found.ce_sae), ("  with nothing in its place", found.ce_zero),
        ("KL divergence, nats per token", found.kl), ("features that never fire here", percent(found.dead_share)),
    ]  # fmt: skip
    title = f"Fitness on {found.n_tokens:,} tokens"
    return Display(title, tables=[listing(("measure", "value"), rows)])


def gate_display(gate: Gate) -> Display:
    """Passed or not, and why."""
    word = {None: "not measured", True: "passed", False: "failed"}[gate.passed]
    rows = [(name.replace("_", " "), limit) for name, limit in gate.limits.items()]
    lines = [f"Not measured: {', '.join(gate.unmeasured)}."] if gate.unmeasured else []
    return Display(f"Fitness gate: {word}", lines, [listing(("figure", "limit"), rows)], notes=gate.failures)


def card_display(card: EvaluationCard) -> Display:
    """The headline, the held-out figures, and what the SAE has above its controls."""
    headline = [(name.replace("_", " "), value) for name, value in card.get("headline", {}).items() if _plain(value)]
    columns = ("held-out text", "variance explained", "L0", "loss recovered", "dead")
    keys = ("variance_explained", "l0", "ce_recovered", "dead_share")
    held_out = [(name, *(number(row.get(key)) for key in keys)) for name, row in card.get("held_out", {}).items()]
    claims = [
        (name, claim, row["sae"], row["control"], row["excess"], ends(row["interval"]))
        for name, one in card.get("excess", {}).get("over", {}).items()
        for claim, row in one["claims"].items()
    ]
    over = ("control", "claim", "this SAE", "control", "excess", "95% interval")
    gate = card.get("gate", {})
    return Display(
        f"Evaluation of {card.get('sae')}",
        [f"On {(card.get('model') or {}).get('name')}, at {card.get('hook')}."],
        [listing(("headline", "value"), headline), listing(columns, held_out), listing(over, claims, title="Beside controls")],
        notes=gate.get("failures", ()),
    )


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, str))
