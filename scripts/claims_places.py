"""The places in docs/claims.md: what was measured here of each claim of the research notes. See fill_docs.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence"
PLACES: list[Callable[[], str]] = []


def of(topic: str, part: str | None = None) -> Callable[[Callable[[dict[str, Any]], str]], Callable[[], str]]:
    """The place is written from that topic's file, or says that the file (or the part of it) is not there."""

    def decorate(write: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
        @wraps(write)
        def place() -> str:
            file = EVIDENCE / f"{topic}.json"
            found = read_json(file) if file.is_file() else {}
            there = found and (part is None or found.get(part))
            return write(found) if there else f"not measured yet (`make evidence TOPIC={topic}`)"

        PLACES.append(place)
        return place

    return decorate


def _range(values: Iterable[float], digits: int = 2) -> str:
    known = sorted(values)
    return f"{known[0]:.{digits}f} to {known[-1]:.{digits}f}"


@of("personas")
def claim_vectors(found: dict[str, Any]) -> str:
    traits = found["traits"]
    clear = [name for name, one in traits.items() if one["auc_rank_p"] <= 0.01 and one["auc_interval"][0] > 0.5]
    beats = [name for name, one in traits.items() if one["auc_interval"][0] > one["auc_random_q95"]]
    areas = _range(one["auc_stripped"] for one in traits.values())
    return (
        f"AUC {areas} on unseen questions and instructions, the system prompt taken out; {len(clear)} of {len(traits)} pass "
        f"rank p .01 ({', '.join(clear)}); lying clear of 95% of random directions: {', '.join(beats) or 'none'}"
    )


@of("labels")
def claim_sub_features(found: dict[str, Any]) -> str:
    evil = found["made_of"]["evil"]
    style = sum(evil[name][0] for name in ("style", "topic", "formatting"))
    subs = sum(value[0] for name, value in evil.items() if name in _SUB_TRAITS)
    return f"{subs:.1%} of evil lies in features labelled as its sub-traits, {style:.0%} in style, topic and formatting"


_SUB_TRAITS = ("insulting_language", "deliberate_cruelty", "jailbreaking", "negative_moral_character", "malicious_code",
               "threats", "manipulation", "violence", "contempt", "domination", "deception", "callousness")  # fmt: skip


@of("decomposition")
def claim_verified(found: dict[str, Any]) -> str:
    n, expected, of_n = (sum(one[key] for one in found["traits"].values()) for key in _VERIFIED)
    return f"{n} of {of_n} tested features move their trait more than matched controls ({expected:.2g} by chance)"


_VERIFIED = ("n_verified", "n_expected_by_chance", "n_tested")


@of("monitoring")
def claim_prediction(found: dict[str, Any]) -> str:
    across = {name: one["r_across"] for name, one in found["prompt"].items()}
    beyond = [name for name, one in found["prompt"].items() if one["r_across"] > one["r_across_placebo_q95"]]
    return (
        f"r {_range(across.values())} between the last prompt token and the judged reply over system prompts; "
        f"{len(beyond)} of {len(across)} lie beyond 95% of placebos"
    )


@of("monitoring")
def claim_monitoring(found: dict[str, Any]) -> str:
    arm = {name: one["arm"] for name, one in found["detection"].items()}
    clear = [
        name for name, one in arm.items()
        if one["detectors"]["vector"]["interval"][0] > max(one["random_q95"], one["placebo_q95"])
    ]  # fmt: skip
    areas = _range(one["detectors"]["vector"]["auroc"] for one in arm.values())
    return f"AUROC {areas} for which persona is in force; clear of random and placebo directions: {', '.join(clear) or 'none'}"


@of("steering_cost", "traits")
def claim_subtraction(found: dict[str, Any]) -> str:
    rows = found["traits"]
    down = {name: one["down"]["trait"] for name, one in rows.items()}
    less = [name for name, one in down.items() if one["interval"][1] < 0]
    random = [one["random"]["change"] for one in down.values() if one["random"]]
    lost = [one["capability_cost"]["down"]["surprise"]["loss"] for one in rows.values()]
    return (
        f"{len(less)} of {len(rows)} measured traits fall, by {_range((-down[name]['change'] for name in less), 0)} points "
        f"(random directions at equal KL change them by {min(random):+.0f} to {max(random):+.0f}), at {_range(lost)} nats per "
        f"token of surprise on held-out text"
    )


@of("prevention")
def claim_prevention(found: dict[str, Any]) -> str:
    return " ".join(one["sentence"] for one in found["studies"].values())


@of("diffing")
def claim_shift(found: dict[str, Any]) -> str:
    same = found["summary"][found["options"]["main_place"]]["agreement"]
    low, high = same["interval"]
    return f"r {same['correlation']:.2f} [{low:.2f}, {high:.2f}] over {len(found['tunes'])} fine-tunes (p {same['p']:.3f})"


@of("screening")
def claim_screening(found: dict[str, Any]) -> str:
    rows = found["screening"]
    clear = [name for name, one in rows.items() if one["interval"][0] > max(one["placebo"]["q95"], one["random"]["q95"])]
    return (
        f"AUROC {_range(one['auroc'] for one in rows.values())} for planted samples; clear of placebo and random directions: "
        f"{', '.join(clear) or 'none'}"
    )


@of("transfer")
def claim_transfer(found: dict[str, Any]) -> str:
    carried = found["transfer"]["carried"]
    beyond = [name for name, one in carried["traits"].items() if one["cosine"] > one["placebo_q95"]]
    matched, placebos = carried["mean_matched"], carried["placebo_mean_matched"]
    return (
        f"carried to {found['transfer']['target']}: mean cosine with the own vector {matched:.2f}, "
        f"of carried placebos {placebos:.2f}; {len(beyond)} of {len(carried['traits'])} beyond 95% of them"
    )
