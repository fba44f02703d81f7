"""The evaluation card as Markdown: every number with its null beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.saes.evaluation.stability import NULLS

if TYPE_CHECKING:
    from workbench.saes.interface import SparseAutoencoder


def card_markdown(value: Mapping[str, Any]) -> str:
    """The card; sections that were not measured say so."""
    lines = [
        "## Evaluation card",
        "",
        f"Measured on {value['model']['name']} ({value['model']['dtype']}) at {value['hook']} by `workbench sae eval`. "
        "What each number means and what it is compared with: docs/saes.md.",
        "",
    ]
    for part in (_gate, _fitness, _probing, _personas, _expression, _splitting, _stability, _excess):
        lines += [*part(value), ""]
    return "\n".join(lines)


def opening(sae: SparseAutoencoder) -> str:
    """The head of an SAE's README: what it is, what it was trained on, how to make it again; as far as its card tells."""
    card, stored = sae.card, "SAELens' layout (`SAE.load_from_disk`)"
    lines = [
        f"# Sparse autoencoder: {sae.model_name}, {sae.hook}",
        "",
        f"{sae.d_sae:,} features of {sae.d_model:,} dimensions, {sae.architecture}, in {stored}. Its features are not meant for "
        "position 0 and norm sinks (norm above 10 x the median): do not read them there.",
    ]
    data = card.get("training_data")
    if isinstance(data, Mapping) and data.get("n_tokens"):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in (data.get("shares") or {}).items())
        lines += ["", f"Training data: {data['n_tokens']:,} activations ({shares})."]
    if card.get("command"):
        lines += ["", "Make it again (every setting is in `card.json`):", "", f"    {card['command']}"]
    return "\n".join([*lines, ""])


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(map(_cell, row)) + " |" for row in rows),
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _gate(value: Mapping[str, Any]) -> Iterator[str]:
    gate = value["gate"]
    verdict = "unmeasured" if gate["passed"] is None else "passed" if gate["passed"] else "FAILED"
    yield f"**Fitness gate: {verdict}.**"
    yield from (f"- {failure}" for failure in gate["failures"])
    if gate["unmeasured"]:
        yield f"- not measured here: {', '.join(gate['unmeasured'])}"


def _fitness(value: Mapping[str, Any]) -> Iterator[str]:
    names = ("n_tokens", "variance_explained", "l0", "ce_recovered", "kl_recovered", "kl", "cosine", "norm_ratio", "dense_share")
    yield from ("### Fitness", "")
    yield from _table(("text", *names), [(text, *(one[n] for n in names)) for text, one in value["held_out"].items()])
    yield ""
    yield f"Dead features (training's count): {_cell(value['headline']['dead_share'])}."


def _by_k(mean: Mapping[str, Mapping[str, float]]) -> list[str]:
    ks = list(next((one for name, one in mean.items() if name != "raw"), {}))
    rows = [(name, *(one.get(k) for k in ks), one.get("all")) for name, one in mean.items()]
    return _table(("dictionary", *(f"k = {k}" for k in ks), "all dimensions"), rows)


def _probing(value: Mapping[str, Any]) -> Iterator[str]:
    yield from ("### k-sparse probing", "")
    probing = value["probing"]
    if not probing:
        yield "Not measured."
        return
    yield f"Mean test AUC over {len(probing['per_set'])} labelled sets ({probing['pooling']} codes); .5 is chance."
    yield ""
    yield from _by_k(probing["mean"])
    if probing["transfer"]:
        yield from ("", f"Out of distribution, mean over {len(probing['transfer'])} transfers to another source:", "")
        yield from _by_k(probing["transfer_mean"])


def _personas(value: Mapping[str, Any]) -> Iterator[str]:
    yield from ("### Persona probing", "")
    traits = value["personas"]["traits"]
    if not traits:
        yield "Not measured: no finished run of a trait was given."
        return
    rows = []
    for one in traits:
        for name, row in one.get("dictionaries", {}).items():
            low, high = row.get("gap_interval", (None, None))
            gap = None if "gap" not in row else f"{row['gap']:+.3f} [{low:+.3f}, {high:+.3f}]"
            rows.append((one["trait"], name, row["auc"], gap, row["within_positive"]))
        if not one["measured"]:
            rows.append((one["trait"], one["reason"], None, None, None))
    yield from _table(("trait", "dictionary", "AUC", "gap to raw (95%)", "within the positive arm"), rows)


def _expression(value: Mapping[str, Any]) -> Iterator[str]:
    yield from ("### Expression of persona vectors", "")
    table = value["expression"]
    if not table:
        yield "Not measured: no vector was given."
        return
    yield f"Energy of {len(table['per_vector'])} vectors in signed atoms, mean; d_model is {table['d_model']}."
    yield ""
    yield from _table(("dictionary", *map(str, table["n_atoms"])), [(name, *row) for name, row in table["mean"].items()])


def _splitting(value: Mapping[str, Any]) -> Iterator[str]:
    yield from ("### Splitting and absorption", "")
    names = ("neighbour_share", "nested_share", "nested_pairs", "nested_chance", "absorption_rate")
    yield from _table(("dictionary", *names), [(k, *(one[n] for n in names)) for k, one in value["splitting"].items()])


def _stability(value: Mapping[str, Any]) -> Iterator[str]:
    yield from ("### Stability over seeds", "")
    if not value["stability"]:
        yield "Not measured: no SAE of another seed was given."
        return
    names = ("seed_matched", "seed_matched_top30", "mean_best_cosine", "n_directions")
    rows = [
        (f"null: {name}" if name in NULLS else name, *(one.get(n) for n in names)) for name, one in value["stability"].items()
    ]
    yield from _table(("compared with", *names), rows)
    yield ""
    yield "The nulls learnt nothing: directions of real activations, and random ones with the activations' covariance."


def _excess(value: Mapping[str, Any]) -> Iterator[str]:
    yield from ("### Excess over controls", "")
    rows = []
    for name, one in value["excess"]["over"].items():
        for claim, row in one["claims"].items():
            interval = row["interval"]
            shown = None if interval is None else f"[{interval[0]:+.3f}, {interval[1]:+.3f}]"
            rows.append((name, claim, row["sae"], row["control"], f"{row['excess']:+.3f}", shown))
    yield from _table(("control", "claim", "this SAE", "control", "excess", "95%"), rows)
    for name, one in value["excess"]["over"].items():
        if one.get("note"):
            yield from ("", f"{name}: {one['note']}.")
    if value["excess"]["over_soft_frozen"] is None:
        yield from ("", "Excess over a soft-frozen SAE: not measured, none was given with `--controls`.")
