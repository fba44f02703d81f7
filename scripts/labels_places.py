"""The places in docs/labels.md that docs/evidence/{labels,blind_reading}.json fill: see fill_docs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence"
TOTALS = ("sub_trait", "other", "open", "unlabelled", "error")
SORTS = {"shipped": "shipped", "one_token": "one word", "generic": "generic", "swapped": "swapped"}
SCORERS = {"minilm": "sentences", "glove": "word vectors"}
NEGATIVES = {"random": "random", "neighbours": "neighbours", "same_token": "same token", "pooled": "pooled"}


def _labels() -> dict[str, Any]:
    return read_json(EVIDENCE / "labels.json")


def _reading() -> dict[str, Any]:
    return read_json(EVIDENCE / "blind_reading.json")


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def _with_interval(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:.2f} [{low:.2f}, {high:.2f}]"


def made_of_table() -> str:
    """Per trait: the totals by kind with intervals, the share of sub-traits under swapped labels beside it."""
    rows = []
    for trait, one in _labels()["made_of_details"].items():
        totals = {part["id"]: part for part in one["totals"]}
        cells = [f"{totals[name]['share']:.3f} [{totals[name]['low']:.3f}, {totals[name]['high']:.3f}]" for name in TOTALS]
        swapped = totals["sub_trait"]["swapped"]
        rows.append([trait, *cells, "–" if swapped is None else f"{swapped['median']:.3f}, p {swapped['p']:.2f}"])
    return _table(["trait", "sub-traits", "other", "unclear", "no label", "error", "sub-traits, swapped"], rows)


def made_of_line() -> str:
    """Which traits have labelled features that show them, and the share by the words of the labels."""
    details = _labels()["made_of_details"]
    whole = {trait: next(p for p in one["totals"] if p["id"] == "sub_trait") for trait, one in details.items()}
    named = ", ".join(trait for trait, part in whole.items() if part["n_features"]) or "none"
    drawn = "; ".join(f"{trait} {_drawn(part)}" for trait, part in whole.items())
    return (
        f"Traits with a labelled feature that shows one of their sub-traits, by its reader (by its words where no reader said): "
        f"{named}. By the words of the labels "
        f"alone, with the assigner's uncertainty in the interval: {drawn}."
    )


def _drawn(part: dict[str, Any]) -> str:
    if part["drawn"] is None:
        return "–"
    low, high = part["drawn_interval"]
    return f"{part['drawn']:.3f} [{low:.3f}, {high:.3f}]"


def blind_line() -> str:
    """Who was read, and what was called evil, or any trait."""
    found, reading = _labels(), _reading()
    n, clarity = reading["n"], reading["clarity"]
    rates = [reading[name] for name in ("evil_share", "any_trait_share", "evil_by_words")]
    top, other, drawn = (" / ".join(f"{rate[group]:.2f}" for rate in rates) for group in ("top", "other", "random"))
    clean, mixed, unclear = (sum(clarity[group][one] for group in n) for one in ("clean", "polysemantic", "unclear"))
    return (
        f"{found['n_labels']} labels ship; {sum(n.values())} of them were read in one go: {n['top']} features (the union of "
        f"the thirty largest of each trait), {n['other']} of no trait that fire as often, {n['random']} at random. Called evil "
        f"by the reader / any trait / sent to a sub-trait of evil by the label's words: {top} of the traits' features, {other} "
        f"of the others, {drawn} of the random ones. Clean {clean}, polysemantic {mixed}, unclear {unclear}."
    )


def probe_line() -> str:
    """What the reader made of planted items, and of items it had read before."""
    planted, again = _reading()["probe"]["planted"], _reading()["probe"]["again"]
    same = {name: again[f"same_{name}"] for name in ("kind", "clarity", "sub_traits")}
    return (
        f"Of {planted['n']} planted items it said of {planted['called_evil']} that the contexts show evil (many are news about "
        f"the subject), but {planted['right_by_words']} labels go to the planted sub-trait by their words alone. Of "
        f"{again['n']} items read again {same['kind']} got the same kind, {same['clarity']} the same clarity, "
        f"{same['sub_traits']} the same sub-traits."
    )


def label_scores_table() -> str:
    """AUROC per kind of negative for each sort of label, and our explainer's on real and soft-frozen features."""
    rows = []
    for scorer, tables in _labels()["by_negatives"].items():
        for column, name in NEGATIVES.items():
            one = tables["shipped"]["columns"].get(column)
            if one is None:
                continue
            cells = [_with_interval(one["auroc"][sort]) for sort in SORTS]
            ours = [_with_interval(tables[which]["columns"][column]["auroc"]["shipped"]) for which in ("offline", "soft_frozen")]
            rows.append([f"{SCORERS[scorer]}, {name} ({one['n']})", *cells, *ours])
    return _table(["scorer, negatives (features)", *SORTS.values(), "our explainer", "... on a soft-frozen SAE"], rows)


def label_reading_line() -> str:
    """The aims: against one word, against soft-frozen, and the closed loop."""
    found = _labels()
    loop, told = found["closed_loop"]["label"], found["closed_loop"]["with_explanation"]
    mean = {name: f"{value:.2f}" for name, value in found["auroc"].items() if not isinstance(value, dict)}
    words = {name: f"{value:.2f}" for name, value in found["auroc"]["by_words"].items() if not isinstance(value, dict)}
    lead = [f"{name.replace('_', ' ')} {_with_interval(one)}" for name, one in found["auroc"]["shipped_minus_one_token"].items()]
    low, high = loop["rank1_interval"]
    return (
        f"Mean of same token and neighbours, by the sentence embedder: shipped {mean['shipped']} (aim .70), one word "
        f"{mean['one_token']}, our explainer {mean['offline']}, on soft-frozen features {mean['soft_frozen']}, swapped "
        f"{mean['swapped']}; by word vectors: shipped {words['shipped']}, one word {words['one_token']}, our explainer "
        f"{words['offline']}, on soft-frozen features {words['soft_frozen']}, swapped {words['swapped']}. Lead over one word on "
        f"the same features, by the sentence embedder: {', '.join(lead)} (aim .10). Closed "
        f"loop over {loop['n_labels']} labels: the own label comes first in "
        f"{loop['rank1']:.2f} [{low:.2f}, {high:.2f}] of the cases (chance {loop['chance']:.2f}), with the explanation in "
        f"{told['rank1']:.2f}."
    )


def index_line() -> str:
    """Speed and memory of the index against the model and the encoder alone."""
    found = _labels()
    one, peak = found["index"], found["index_peak_bytes"] / 2**20
    alone = one["floor_peak_bytes"] / 2**20
    return (
        f"Speed against the model and the encoder alone, in one run: {found['index_vs_floor']:.2f} ({one['n_tokens']:,} tokens, "
        f"{one['size']['d_sae']:,} features, {one['l0']:.0f} active a token; aim .90). "
        f"Memory beyond model and SAE, over {one['memory_tokens']:,} tokens: {peak:,.0f} MiB (the two alone, reading: "
        f"{alone:,.0f})."
    )


def faulty_line() -> str:
    """Explaining at an endpoint that fails three times in ten."""
    one = _labels()["faulty_endpoint"]
    return f"At an endpoint that fails three times in ten: lost {one['lost']}, repeated {one['repeated']}."


PLACES = (
    made_of_table, made_of_line, blind_line, probe_line, label_scores_table, label_reading_line, index_line, faulty_line,
)  # fmt: skip
