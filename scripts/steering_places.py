"""The places in docs/steering.md that the evidence on using the vectors fills: see fill_docs.py.

What was not measured yet says so, and by which command it would be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence"


def of(topic: str) -> Callable[[Callable[[dict[str, Any]], str]], Callable[[], str]]:
    """The place is written from that topic's file, or says that the file is not there."""

    def decorate(write: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
        @wraps(write)
        def place() -> str:
            file = EVIDENCE / f"{topic}.json"
            return write(read_json(file)) if file.is_file() else f"*Not measured yet: `make evidence TOPIC={topic}`.*"

        return place

    return decorate


def _span(found: dict[str, Any], name: str = "auroc") -> str:
    low, high = found["interval"]
    return f"{found[name]:.2f} [{low:.2f}, {high:.2f}]"


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n" + "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


@of("monitoring")
def monitoring_table(found: dict[str, Any]) -> str:
    """AUROC of every detector for the persona's system prompt, trait by trait."""
    names = {"vector": "vector", "feature": "best feature", "probe": "feature probe", "dense_probe": "probe of the residual",
             "text": "words"}  # fmt: skip
    rows = []
    for trait, kinds in found["detection"].items():
        arm = kinds["arm"]
        chance = max(arm["random_q95"], arm["placebo_q95"])
        rows.append((trait, *(_span(arm["detectors"][name]) for name in names), f"{chance:.2f}"))
    return _table(("trait", *names.values(), "random, placebo: 95% below"), rows)


@of("monitoring")
def monitoring_judged_table(found: dict[str, Any]) -> str:
    """The same for what the outcome judge says of the reply, with lead and surrogate."""
    rows = []
    for trait, kinds in found["detection"].items():
        told, lead = kinds["judge"]["detectors"], found["lead"][trait]["rules"]["running_8"]["0.05"]
        reader = found["surrogate"][trait]["arm"]["detectors"]
        rows.append((trait, _span(told["vector"]), _span(told["text"]), f"{lead['detected']['value']:.0%}",
                     f"{lead['before_onset']['value']:.0%}", _span(reader["reader"]), _span(reader["text"])))  # fmt: skip
    return _table(("trait", "judge: vector", "judge: words", "caught at 5%", "before the first such sentence",
                   "read by another model", "words alone"), rows)  # fmt: skip


@of("monitoring")
def monitoring_rates_line(found: dict[str, Any]) -> str:
    """The false-positive rates that thresholds of 5% achieve."""
    other = [one["rules"]["running_8"]["0.05"]["check"]["rate"] for one in found["thresholds"].values()]
    everyday = [one["rules"]["running_8"]["0.05"]["rate"] for one in found["ordinary"].values()]
    return (
        f"Thresholds for 5% of neutral replies are passed by {min(other):.1%} to {max(other):.1%} of other neutral replies, and "
        f"by {min(everyday):.1%} to {max(everyday):.1%} of replies to everyday questions (running mean over eight tokens)."
    )


@of("monitoring")
def monitor_overhead_line(found: dict[str, Any]) -> str:
    """Time of watched generation over that of plain generation."""
    cost = found["monitor_overhead"]

    def told(batch: str) -> str:
        ratios = (cost[batch][kind]["processor"] for kind in ("vectors", "vectors_and_features"))
        return " and ".join(f"{one['ratio']:.3f} [{one['interval'][0]:.3f}, {one['interval'][1]:.3f}]" for one in ratios)

    return (
        f"Watched over plain generation, processor time, with {cost['n_vectors']} vectors and with {cost['n_features']} features "
        f"as well: {told('batch_1')} for one reply at a time, {told('batch_16')} for sixteen."
    )


@of("monitoring")
def monitoring_prompt_line(found: dict[str, Any]) -> str:
    """What the last token of the prompt says of the coming reply."""
    values = sorted(one["r_across"] for one in found["prompt"].values())
    beyond = sum(one["r_across"] > one["r_across_placebo_q95"] for one in found["prompt"].values())
    return (
        f"The projection of the prompt's last token correlates with the judged reply at r {values[0]:.2f} to {values[-1]:.2f} "
        f"over system prompts (median {median(values):.2f}); {beyond} of {len(values)} lie beyond 95% of placebos."
    )


@of("steering_cost")
def steering_table(found: dict[str, Any]) -> str:
    """Trait by trait: steered up, down and ablated, with a random direction at the same KL and what each costs."""
    rows = []
    for trait, row in found["traits"].items():
        up, down, ablate = row["up"], row["down"]["trait"], row["ablate"]["trait"]
        cost = row["capability_cost"] or {}
        lost = " / ".join(_number(cost.get(name), "surprise") for name in ("up", "down", "ablate"))
        rows.append((trait, f"{up['dose']:+.1f}", _points(up), _null(up), f"{down['base']:.0f}", _points(down), _null(down),
                     _points(ablate), _null(ablate), lost))  # fmt: skip
    columns = ("trait", "dose up, norms", "up, points", "random", "with the trait's prompt", "down", "random", "ablated",
               "random", "nats lost: up / down / ablated")  # fmt: skip
    return _missing(found) + _table(columns, rows)


@of("steering_cost")
def steering_fronts(found: dict[str, Any]) -> str:
    """What each method loses where it first reaches the smallest change that is compared, cheapest first."""
    told = []
    for name, words in (("reduce", "less of it, from the trait's own prompts"), ("induce", "more of it, without a prompt")):
        if name not in found["sweep"]:
            continue
        compared = found["sweep"][name]["at_equal_change"][0]
        rows = [
            (one["method"], "not reached" if one["value"] is None else f"{one['value']:.2f}", _ends(one["interval"]),
             f"{one['reached']:.0%}", *_difference(one))
            for one in compared["methods"]
        ]  # fmt: skip
        title = f"evil, {words}: nats per token lost at a change of {compared['change']:g} points"
        told.append(f"\n{title}\n" + _table(("method", "lost", "95% interval", "reached in", "less `add`", "95% interval"), rows))
    return "".join(told)


def _number(found: dict[str, Any] | None, name: str) -> str:
    value = (found or {}).get(name)
    value = value.get("loss") if isinstance(value, dict) else value
    return "–" if value is None else f"{value:.2f}"


def _difference(one: dict[str, Any]) -> tuple[str, str]:
    """A method's loss less that of `add`, with its interval; dashes where either is infinite, and for `add` itself."""
    low, high = one["difference_interval"]
    if one["difference"] is None or low is high is None:
        return "–", "–"
    return f"{one['difference']:+.2f}", f"[{'−∞' if low is None else f'{low:.2f}'}, {'∞' if high is None else f'{high:.2f}'}]"


def _ends(pair: Any) -> str:
    return "[" + ", ".join("∞" if end is None else f"{end:.2f}" for end in pair) + "]"


def _points(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['change']:+.0f} [{low:+.0f}, {high:+.0f}]"


def _null(found: dict[str, Any]) -> str:
    return "–" if found["random"] is None else f"{found['random']['change']:+.0f}"


def _missing(found: dict[str, Any]) -> str:
    names = dict.fromkeys(re.sub(r" [-+][\d.]+$", "", name) for name in found.get("missing", ()))
    return f"Not measured yet: {', '.join(names)}.\n" if names else ""


@of("prevention")
def prevention_table(found: dict[str, Any]) -> str:
    """Per trait and arm: the trait, surprise on held-out documents, loss of the lesson; then the sentence."""
    told = []
    for trait, arms in found["prevention"].items():
        rows = [
            (arm, f"{one['trait']:.0f} [{one['interval'][0]:.0f}, {one['interval'][1]:.0f}]",
             _with_ends(one["capability"], one["capability_interval"]), _with_ends(one["task_loss"], one["task_loss_interval"]))
            for arm, one in arms.items()
        ]  # fmt: skip
        told.append(f"\n{trait}\n" + _table(("arm", "trait, points of 100", "surprise, nats", "loss of the lesson"), rows))
        told.append(f"\n{found['studies'][trait]['sentence']}\n")
    return "".join(told)


def _with_ends(value: float | None, ends: list[float] | None) -> str:
    return "–" if value is None or ends is None else f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


@of("diffing")
def diffing_line(found: dict[str, Any]) -> str:
    """Over the fine-tunes: how well the shift says what changed, whose trait is named, and the alarms."""
    main, lens = found["options"]["main_place"], found["options"]["lens"]

    def told(place: str) -> str:
        one = found["summary"][place]
        same, named, shams, own = one["agreement"], one["identified"], one["shams"], one["trained"]
        low, high = same["interval"]
        return (
            f"r {same['correlation']:.2f} [{low:.2f}, {high:.2f}] (p {same['p']:.3f}), the trained trait named in {named['n']} "
            f"of {named['of']} (the same names dealt out at random: {named['by_chance']:.1f}, p {named['p']:.3f}), alarms for it "
            f"in {own['n_alarmed']} of {own['of']}, "
            f"false alarms on {shams['n_alarmed']} of {shams['of']} shams"
        )

    n = len(found["tunes"])
    return f"Of {n} fine-tunes, the shift at the last token of prompts: {told(main)}. The difference lens: {told(lens)}."


@of("diffing")
def rotation_line(found: dict[str, Any]) -> str:
    """How many features turned on the new models, against the same SAE trained on in another order."""
    told = [
        f"{name}: {one['share']:.1%} of {one['n_features']:,} features turn further than 95% do on the old model's activations "
        f"(another order of the same tokens: {one['again_share']:.1%})"
        for name, one in found["rotation"].items()
    ]
    return f"A short fine-tune of the SAE on the new model. {'; '.join(told)}."


@of("prevention_pair")
def pair_change_line(found: dict[str, Any]) -> str:
    """Evil's vector before and after a fine-tune on evil replies."""
    one = found["change"]
    return (
        f"Evil's vector before and after the plain fine-tune on evil replies: cosine {one['cosine']:.2f}, "
        f"{one['norm_ratio']:.2f} as long; "
        f"the shares of {one['n_apart']} of {one['n_compared']} features differ ({one['n_by_chance']:.1f} by chance), and "
        f"{one['error_of_change']:.0%} of the change lies in the SAE's error."
    )


@of("prevention_pair")
def pair_transfer_line(found: dict[str, Any]) -> str:
    """Two vectors of a base model carried to its fine-tune on chats."""
    one = found["transfer"]
    if one is None:
        return ""
    carried, layers = one["carried"], one["similarity_used"]
    acted = {name: (two["carried"], two["own"]["odd"]) for name, two in one["behaviour"].items()}
    traits = "; ".join(
        f"{name}: cosine {row['cosine']:.2f} (95% of unrelated directions below {row['null_q95']:.2f}), pushed "
        f"{pushed['odd']:+.2f} {_ends(pushed['interval'])} where the target's own moves {own:+.2f} "
        f"(of {pushed['n_random']} random directions at that size, p {pushed['p']:.2f})"
        for name, row in carried["traits"].items()
        for pushed, own in [acted[name]]
    )
    return (
        f"{one['source']} before and after {one['target'].split(' after ')[1]}: CKA {layers['cka']:.2f} (permuted "
        f"{layers['cka_permuted_mean']:.2f}), the map between them explains {carried['map']['r2_held_out']:.0%} of held-out "
        f"segments. Carried vectors, {traits}. Each is nearest to its own trait."
    )


@of("screening")
def screening_table(found: dict[str, Any]) -> str:
    """AUROC of planted samples among ordinary ones, trait by trait, with what it has to beat."""
    rows = []
    for trait, one in found["screening"].items():
        own, text = one["own"], one["text"]
        rows.append((trait, _span(one), f"{own['auroc']:.2f}", _span({**text, "auroc": text["value"]}),
                     f"{one['length']['value']:.2f}", f"{one['placebo']['q95']:.2f}", f"{one['random']['q95']:.2f}"))  # fmt: skip
    columns = ("trait", "vector", "against own replies", "words", "length", "placebos: 95% below", "random: 95% below")
    return _table(columns, rows)


@of("screening")
def screening_same_questions_line(found: dict[str, Any]) -> str:
    """AUROC against ordinary replies to the same questions, and on what words miss."""
    same = ", ".join(f"{trait} {one['same_questions']['vector']['value']:.2f}" for trait, one in found["screening"].items())
    missed = ", ".join(f"{trait} {one['missed_by_text']['vector']['value']:.2f}" for trait, one in found["screening"].items())
    return f"Against ordinary replies to the same questions: {same}. On the samples that words miss: {missed}."


@of("screening")
def screening_planted_line(found: dict[str, Any]) -> str:
    """Precision among the highest share when that share is planted, middle and range over the traits."""
    told = []
    for share in next(iter(found["planted"].values()))["prompt"]:
        values = sorted(_value(one["prompt"][share]) for one in found["planted"].values())
        told.append(f"{median(values):.0%} ({values[0]:.0%} to {values[-1]:.0%}) at {float(share):.0%} planted")
    return f"Precision among as many of the highest as were planted, in the middle of the traits: {', '.join(told)}."


def _value(one: Any) -> float:
    return float(one["value"] if isinstance(one, dict) else one)


@of("screening_tuning")
def screening_tuned_table(found: dict[str, Any]) -> str:
    """The trait after fine-tuning on the mixed set, the filtered one, a random half and the clean one."""
    tuned = found["after_finetuning"]
    rows = [
        (name, one["n"], one["n_bearing"], _change(one["points"]), _change(one["preference"], 3))
        for name, one in tuned["sets"].items()
    ]
    power = ", ".join(f"{name}: {said}" for name, said in tuned["power"].items())
    told = _table(("trained on", "samples", "bearing", "trait, change in points", "preference for bearing replies, nats"), rows)
    apart = ", ".join(f"{pair} {_change(one['preference'], 3)}" for pair, one in tuned["contrasts"].items())
    return f"{told}\nDid the planted samples move the trait? {power}. Differences in preference: {apart}.\n"


def _change(one: dict[str, Any], digits: int = 0) -> str:
    low, high = one["interval"]
    return f"{one['value']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


PLACES = (
    monitoring_table, monitoring_judged_table, monitoring_rates_line, monitor_overhead_line, monitoring_prompt_line,
    steering_table, steering_fronts, prevention_table, diffing_line, rotation_line, pair_change_line, pair_transfer_line,
    screening_table, screening_same_questions_line, screening_planted_line, screening_tuned_table,
)  # fmt: skip
