"""Displays of traits, replies, vectors, and of what is measured on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.reports.displays.frame import Display, ends, listing, number

if TYPE_CHECKING:
    from workbench.personas.comparison import Comparison
    from workbench.personas.exchange import Imported
    from workbench.personas.formats.layered import LayeredVectors
    from workbench.personas.geometry import Geometry
    from workbench.personas.panel import Panel
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.rollouts import RolloutDesign, Rollouts
    from workbench.personas.traits import Trait
    from workbench.personas.transfer import Transfer
    from workbench.personas.vectors import PersonaVector

_EVIDENCE = (
    ("AUC, instruction removed, unseen questions", "auc_stripped", "auc_stripped_interval"),
    ("  95th percentile of random directions", "auc_random_q95", ""),
    ("  rank p among random directions", "auc_rank_p", ""),
    ("AUC with the instruction in sight", "auc_with_prompt", "auc_with_prompt_interval"),
    ("AUC of the words alone (TF-IDF)", "auc_text_only", ""),
    ("AUC of the length alone", "auc_length_only", ""),
)


def vector_display(vector: PersonaVector) -> Display:
    """The separability with what it is compared with, and the curve over blocks."""
    from workbench.reports import verdict
    from workbench.reports.evidence import layer_points
    from workbench.reports.figures import layer_curve

    evidence, points = vector.evidence, layer_points(vector.evidence)
    rows = [(name, evidence.get(key), ends(evidence.get(interval))) for name, key, interval in _EVIDENCE]
    where = f"{vector.model.get('name', 'a model')}, {vector.hook}, one of {len(vector.hooks)} hook points"
    return Display(
        f"Persona vector: {vector.trait}",
        [f"{where}; {len(vector.rows):,} replies."],
        [listing(("measure", "value", "95% interval"), [row for row in rows if row[1] is not None], only_known=True)],
        figure=layer_curve(points, chosen=float(vector.hook.block)) if len(points) > 1 else None,
        notes=verdict.vector_warnings(evidence),
    )


def layered_display(vectors: LayeredVectors) -> Display:
    """The lengths at the hook points, and the notes of the import."""
    rows = [(str(hook), float(vector.norm())) for hook, vector in vectors.vectors.items()]
    chosen = f", meant for {vectors.hook}" if vectors.hook else ""
    lines = [f"{vectors.model.get('name', 'a model')}: {len(rows)} hook points{chosen}."]
    return Display(f"Imported vector: {vectors.trait}", lines, [listing(("hook", "length"), rows)], notes=vectors.notes)


def trait_display(trait: Trait) -> Display:
    """What was written about the trait, with one example of each kind."""
    pair, triple = next(iter(trait.contrast_pairs), None), trait.instructions[0]
    counts = [
        ("instructions", len(trait.instructions), triple.positive),
        ("questions", len(trait.questions), trait.questions[0].text),
        ("pairs of written replies", len(trait.contrast_pairs), "–" if pair is None else pair.trait),
        ("control pairs", len(trait.control_pairs), next((one.trait for one in trait.control_pairs), "–")),
        ("traps for a judge", len(trait.traps), next((one.trait for one in trait.traps), "–")),
    ]
    categories = [(one.name, one.kind, "yes" if one.shows_trait else "no", one.description) for one in trait.taxonomy]
    return Display(
        f"Trait: {trait.name}",
        [trait.description],
        [
            listing(("what", "how many", "the first"), counts),
            listing(("category", "kind", "shows the trait", "description"), categories, title="Taxonomy of labels", most=20),
        ],
    )


def rollouts_display(rollouts: Rollouts) -> Display:
    """How many replies there are of each kind, and one of each arm."""
    table = rollouts.table.select(["split", "arm", "question", "response", "n_tokens", "finished"]).to_pylist()
    kinds = sorted({(row["split"], row["arm"]) for row in table})
    counted = []
    for kind in kinds:
        rows = [row for row in table if (row["split"], row["arm"]) == kind]
        finished = sum(bool(row["finished"]) for row in rows) / len(rows)
        counted.append((*kind, len(rows), sum(row["n_tokens"] for row in rows) / len(rows), f"{finished:.0%}"))
    first = [next(row for row in table if row["arm"] == arm) for arm in sorted({row["arm"] for row in table})]
    trait = rollouts.table["trait"][0].as_py() if len(table) else ""
    per_token = ", ".join(map(str, rollouts.token_hooks)) or "none"
    replies = [(row["arm"], row["question"], row["response"]) for row in first]
    return Display(
        f"Rollouts of {trait}: {len(table):,} replies",
        [f"Activations at {len(rollouts.hooks)} hook points; per token at {per_token}."],
        [
            listing(("split", "arm", "replies", "mean tokens", "finished"), counted),
            listing(("arm", "question", "reply"), replies, title="One of each arm"),
        ],
    )


def design_display(design: RolloutDesign) -> Display:
    """The numbers of the design."""
    sampling, every = design.sampling, "all"
    rows = [
        ("extraction questions", every if design.n_extraction is None else design.n_extraction),
        ("evaluation questions", every if design.n_evaluation is None else design.n_evaluation),
        ("instructions", every if design.n_instructions is None else design.n_instructions),
        ("samples of each", design.n_samples),
        ("arms", ", ".join(design.arms)),
        ("longest reply, tokens", sampling.max_new_tokens),
        ("temperature", sampling.temperature),
        ("top p", sampling.top_p),
    ]
    return Display("Design of rollouts", tables=[listing(("what", "value"), rows)])


def matrix(names: Sequence[str], values: Sequence[Sequence[Any]], *, title: str) -> Any:
    """A square table of numbers with names on both sides."""
    rows = [(name, *(_two(value) for value in row)) for name, row in zip(names, values, strict=True)]
    return listing(("", *names), rows, title=title)


def _two(value: Any) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}".replace("-", "−")


def geometry_display(geometry: Geometry) -> Display:
    """The cosines, and whose vector separates whose replies."""
    shared = ", ".join(f"{t} {float(x):.2f}" for t, x in zip(geometry.traits, geometry.shared_share, strict=True))
    return Display(
        f"{len(geometry.traits)} vectors side by side",
        [f"Share of each squared length along their common mean: {shared}. Any {len(geometry.traits)} orthogonal vectors have "
         f"{geometry.shared_null.orthogonal:.2f} each."],
        [
            matrix(geometry.traits, geometry.cosines.tolist(), title="Cosines"),
            matrix(geometry.traits, geometry.auc.tolist(), title="AUC: whose vector (row) on whose replies (column)"),
        ],
    )  # fmt: skip


def panel_display(panel: Panel) -> Display:
    """One line per trait: does it separate, does it push, does it foretell."""
    rows = []
    for trait, row in panel.rows.items():
        causal = (row.get("causal") or {}).get("1.0") or {}
        rows.append((trait, row.get("hook") or panel.hook, row.get("auc_stripped"), ends(row.get("auc_interval")),
                     row.get("auc_random_q95"), row.get("auc_text_only"), causal.get("odd")))  # fmt: skip
    columns = ("trait", "hook", "AUC", "95% interval", "random q95", "words alone", "odd effect, 1 norm")
    tables = [listing(columns, rows, only_known=True)]
    if panel.geometry is not None:
        tables.append(matrix(panel.geometry.traits, panel.geometry.cosines.tolist(), title=f"Cosines at {panel.hook}"))
    return Display(f"Panel of {len(rows)} traits", tables=tables, notes=panel.notes)


def comparison_display(found: Comparison) -> Display:
    """One line per way to make the vector."""
    rows = []
    for row in found.rows:
        causal = (row.get("causal") or {}).get("1.0") or {}
        rows.append((row["name"], row.get("auc"), ends(row.get("auc_interval")), row.get("effect_size"),
                     row.get("split_half_cosine"), causal.get("odd")))  # fmt: skip
    columns = ("way", "AUC", "95% interval", "Cohen’s d", "split-half cosine", "odd effect, 1 norm")
    return Display(f"Ways to make the vector of {found.trait}", tables=[listing(columns, rows, most=20, only_known=True)])


def transfer_display(found: Transfer) -> Display:
    """One line per trait: its carried vector against the target's own, with the nulls."""
    value = found.to_json()
    rows = [
        (trait, row["cosine"], row["rank"], row["null_q95"], row["p_permuted"], row["placebo_q95"], row["p_placebo"])
        for trait, row in value["traits"].items()
    ]
    fit = value["map"]
    return Display(
        "Vectors carried to another model",
        [f"The nearest vector of the target is the trait’s own for {value['retrieval']:.0%} (chance {value['chance']:.0%}). "
         f"The map explains {number(fit['r2_held_out'])} of held-out variance, {number(fit['r2_permuted'])} if permuted."],
        [listing(("trait", "cosine", "rank", "95% of permuted maps", "p", "95% of placebos", "p"), rows)],
    )  # fmt: skip


def placebos_display(placebos: PlaceboVectors) -> Display:
    """Which contrasts there are."""
    where = f"{placebos.model.get('name', 'a model')}, {len(placebos.hooks)} hook points."
    rows = [(name, ", ".join(related) or "–") for name, related in zip(placebos.names, placebos.related, strict=True)]
    return Display(f"{len(rows)} placebo contrasts", [where], [listing(("contrast", "comes close to"), rows, most=30)])


def imported_display(imported: Imported) -> Display:
    """The trait that was made, and what is to be known about it."""
    found = trait_display(imported.trait)
    return Display(f"Imported trait: {imported.trait.name}", found.lines, found.tables, notes=imported.notes)
