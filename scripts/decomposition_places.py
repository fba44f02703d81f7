"""The places in docs/decomposition.md and docs/lab.md that docs/evidence/{decomposition,audit}.json fill: see fill_docs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence"
METHODS = ("shares", "crossed", "cosine", "pursuit", "naive")


def _decomposition() -> dict[str, Any]:
    return read_json(EVIDENCE / "decomposition.json")


def _audit() -> dict[str, Any]:
    return read_json(EVIDENCE / "audit.json")


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:+.{digits}f}"


def _span(pair: list[float] | None, digits: int = 2) -> str:
    return "" if not pair else f" [{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]"


def lab_table() -> str:
    """Realised false discovery rate and power of the tests and of the views without error rates, per difficulty."""
    planted = _decomposition()["planted"]
    rows = []
    for difficulty, methods in planted.items():
        tests = [f"{_number(methods[name]['fdr_at_05'])} / {_number(methods[name]['power_vs_oracle'])}" for name in METHODS[:2]]
        views = [_number(methods[name]["fdr_at_05"]) for name in METHODS[2:]]
        rows.append([f"`{difficulty}`", *tests, *views])
    columns = ["difficulty", "shares: FDR / power", "crossed: FDR / power", "cosine: wrong", "pursuit: wrong", "encode(v): wrong"]
    return _table(columns, rows)


def flawed_table() -> str:
    """The same on SAEs that are not perfect."""
    rows = []
    for sae, methods in _decomposition()["flawed"].items():
        tests = [f"{_number(methods[name]['fdr_at_05'])} / {_number(methods[name]['power_vs_oracle'])}" for name in METHODS[:2]]
        rows.append([f"`{sae}`", *tests, _number(methods["cosine"]["fdr_at_05"]), _number(methods["shares"].get("energy_error"))])
    return _table(["SAE", "shares: FDR / power", "crossed: FDR / power", "cosine: wrong", "shares: energy error"], rows)


def lab_reading() -> str:
    """Which aims the two tests miss with the perfect SAE."""
    planted = _decomposition()["planted"]
    missed = {}
    for test in METHODS[:2]:
        rows = {name: methods[test] for name, methods in planted.items()}
        missed[test] = [name for name, row in rows.items() if (row["fdr_at_05"] or 0) > 0.05 + 2 * row["fdr_se"][0]]
    n = next(iter(next(iter(planted.values())).values()))["n"]
    said = {test: ", ".join(f"`{name}`" for name in names) or "none" for test, names in missed.items()}
    return (f"{n} worlds each. Difficulties in which the realised rate is above .05 by more than two standard errors: "
            f"sign flips over questions {said['shares']}; the crossed test {said['crossed']}.")  # fmt: skip


def trait_counts_table() -> str:
    """Seven traits on the default SAE: how many features each null leaves, and the energy."""
    rows = []
    for trait, one in _decomposition()["traits"].items():
        counts = sorted(one["placebo_counts"])
        others = f"{counts[len(counts) // 2]}, {counts[-1]}"
        same, excess = one["same_against_same"], one["energy_excess"]
        rows.append([
            trait, f"{one['n_rows']:,}", f"{_number(one['share_error'])}{_span(one['share_error_interval'])}",
            _number(one["n_features_half"], 0), str(one["n_by_questions"]), str(one["n_crossed"]),
            f"{one['n_specific']} ({others})", _number(one["placebo_rank_p"]), _number(same["rate"]),
            "–" if not excess else f"{_signed(excess['value'], 3)}{_span(excess['interval'], 3)}",
        ])  # fmt: skip
    columns = ["trait", "rows", "share of the error", "features for half of v", "differ over questions", "crossed",
               "beyond placebos (placebos: median, most)", "rank p of that", "A/A rate", "energy excess"]  # fmt: skip
    return _table(columns, rows)


def null_rates_line() -> str:
    """What is found where nothing is."""
    rates = _decomposition()["null_false_rate"]
    same, left = rates["same_against_same"], rates["leave_one_placebo_out"]
    return (f"An arm against itself: anything is found in {same['rate']:.2f} of {same['n_splits']} splits. A placebo against "
            f"the other placebos: {left['with_any']} of {left['n']} get a feature, {left['most']} at most.")  # fmt: skip


def speed_line() -> str:
    """The pursuit against scikit-learn, and a whole trait."""
    e = _decomposition()
    return (f"Signed pursuit of 7 vectors with 64 atoms of 131,072 in 3,584 dimensions: {e['pursuit_vs_sklearn']:.1f} x "
            f"scikit-learn's orthogonal matching pursuit in the same run, peak memory {e['pursuit_peak_memory_vs_decoder']:.2f} "
            f"x the decoder's own. A whole trait without the causal part: {e['trait_seconds']:.0f} s.")  # fmt: skip


def audit_table() -> str:
    """Per trait: the vector's effect, what the first features keep, and what random vectors as close keep."""
    rows = []
    for trait, one in _audit()["traits"].items():
        found, kept = one["behaviour"], one["behaviour"]["denoised"]
        whole, parts = found["vector"], found["parts"]["natural"]
        cells = ["–"] * 4
        if kept is not None:
            mixed = kept["mixtures_kept"]
            cells = [
                f"{kept['k']} ({kept['cosine']:.2f})", f"{_number(kept['effect_kept'])}{_span(kept['interval'])}",
                f"{_number(mixed['mean'])}; {_signed(mixed['difference'])}{_span(mixed['interval'])}, p {mixed['p']:.2f}",
                f"{_number(kept['kl_ratio'])} ({_number(kept['compared_at'])})",
            ]
        rows.append([trait, f"{_signed(whole['odd'])}{_span(whole['interval'])}", *cells,
                     f"{_signed(parts['features'])} / {_signed(parts['rest'])} / {_signed(parts['error'])}"])  # fmt: skip
    columns = ["trait", "odd effect of v", "k (cosine)", "kept", "kept by mixtures; difference", "KL ratio (at part of effect)",
               "natural scale: features / rest / error"]  # fmt: skip
    return _table(columns, rows)


def audit_reading() -> str:
    """What the audits say, counted."""
    found = {trait: one["behaviour"] for trait, one in _audit()["traits"].items()}
    kept = {trait: one["denoised"] for trait, one in found.items() if one["denoised"] is not None}
    ties = sum(one["mixtures_kept"]["interval"][0] <= 0 <= one["mixtures_kept"]["interval"][1] for one in kept.values())
    ratios = [one["kl_ratio"] for one in kept.values()]
    dosed = [one["parts"]["equal_dose"] for one in found.values()]
    rest, error = (sum(one[name] >= one["features"] for one in dosed) for name in ("rest", "error"))
    return (
        f"For {len(found) - len(kept)} of {len(found)} traits no sum of up to 128 features keeps 80% of it. Where one does "
        f"({', '.join(kept)}), the interval of its lead over random vectors with the same cosine holds 0 in {ties} of "
        f"{len(kept)}, and it distorts neutral text {min(ratios):.1f} to {max(ratios):.1f} times as much as v at the same "
        f"effect: there is no denoising to be had here. At equal dose what is left of v after its first features steers at least "
        f"as well as those features for {rest} of {len(found)} traits, the SAE's error alone for {error} (no intervals "
        "were taken of that)."
    )


def verified_reading() -> str:
    """The counts over all traits."""
    rows = [one for one in _decomposition()["traits"].values() if "n_verified" in one]
    counts = ("verified", "tested", "expected_by_chance", "verified_first_five", "verified_soft_frozen", "tested_soft_frozen")
    total = {f"n_{name}": sum(one[f"n_{name}"] for one in rows) for name in counts}
    again = sum(one["confirmed"]["n_confirmed"] for one in rows)
    return (
        f"Together {total['n_verified']} of {total['n_tested']} (by chance {total['n_expected_by_chance']:.1f}), {again} of them "
        f"again in the second SAE; of the five largest {total['n_verified_first_five']}, on the soft-frozen SAE "
        f"{total['n_verified_soft_frozen']} of {total['n_tested_soft_frozen']}."
    )


def verified_table() -> str:
    """Per trait: how many of the ten largest features move the model, on the SAE, in a second one, on a soft-frozen one."""
    rows = []
    for trait, one in _decomposition()["traits"].items():
        if "n_verified" not in one:
            continue
        again = one["confirmed"]
        rows.append([
            trait, f"{one['n_verified']} of {one['n_tested']} ({_number(one['n_expected_by_chance'])})",
            f"{again['n_confirmed']} ({again['n_matched']} have a match)",
            str(one["n_verified_first_five"]),
            f"{one['n_verified_soft_frozen']} of {one['n_tested_soft_frozen']} "
            f"({_number(one['n_expected_by_chance_soft_frozen'])})",
        ])  # fmt: skip
    columns = ["trait", "verified (by chance)", "again in a second SAE", "of the five largest", "soft-frozen SAE: of its five"]
    return _table(columns, rows)


def screen_table() -> str:
    """Per trait: how well effects are predicted, how many features do more than controls, what the prompt works through."""
    rows = []
    for trait, one in _audit()["traits"].items():
        if "agreement" not in one:
            continue
        agreement, effect, totals = one["agreement"], one["persona_effect"], one["totals"]
        each = [totals[name] for name in ("everything", "features", "error")]
        gone = [f"{_signed(total['value'], 3)}{_span(total['interval'], 3)}" for total in each]
        rows.append([
            trait, _number(agreement["predicted"]), f"{agreement['beyond_controls']:.2f} ({agreement['by_chance']:.2f})",
            f"{_signed(effect['value'], 3)}{_span(effect['interval'], 3)}", *gone, _number(agreement["put_back_predicted"]),
        ])  # fmt: skip
    columns = ["trait", "predicted ~ measured, r", "p <= .05 among controls (by chance)", "effect of the system prompt",
               "goes with all", "with the features", "with the error", "put back: predicted ~ measured, r"]  # fmt: skip
    return _table(columns, rows)


def answers_line() -> str:
    """What sampled answers say of evil's features."""
    for trait, one in _audit()["traits"].items():
        judged = one.get("answers")
        if judged:
            points = [row["points"]["odd"] for row in one["top"] if "points" in row]
            vector, low, high = judged["vector"], min(judged["controls"]), max(judged["controls"])
            return (
                f"Sampled answers ({trait}, {judged['n_questions']} questions, judge {judged['judge']}, unsteered "
                f"{judged['unsteered']['score']:.1f} points of 100): the vector at a quarter norm moves the score by "
                f"{vector['odd']:+.1f}{_span(vector['interval'], 1)} points each way, its ten strongest features by "
                f"{min(points):+.1f} to {max(points):+.1f}, ten matched controls by {low:+.1f} to {high:+.1f}."
            )
    return "–"


def streaming_line() -> str:
    """Reading mean codes against the bare encoder product, and how it grows."""
    e = _decomposition()
    small, large, grows = e["streaming"], e["streaming"]["larger"], e["growth"]
    exponents = {name: curve["time_exponent"] for name, curve in grows.items() if name != "_made"}
    memory = [point["peak_bytes"] / 2**20 for point in grows["streaming_tokens"]["points"]]
    sizes = [f"{one['ratio']:.2f} at {one['d_model']:,} x {one['d_sae']:,}" for one in (small, large)]
    return (
        f"Mean codes of responses are read at {sizes[0]} and {sizes[1]} of the speed of the bare encoder product (one thread). "
        f"Time grows as d_sae^{exponents['streaming_d_sae']:.2f}; memory hardly with the tokens ({min(memory):.0f} to "
        f"{max(memory):.0f} MiB). Pursuit grows as d_sae^{exponents['pursuit_d_sae']:.2f} and atoms^{exponents['pursuit_k']:.2f} "
        "here, where fixed costs still count."
    )


PLACES = (
    lab_table, flawed_table, lab_reading, trait_counts_table, null_rates_line, speed_line, audit_table, audit_reading,
    verified_table, verified_reading, screen_table, answers_line, streaming_line,
)  # fmt: skip
