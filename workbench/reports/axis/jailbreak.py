"""Success of attacks under each arm as a picture, with intervals, and what may be claimed. No word of any request or reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.figures import _path
from workbench.reports.svg import Figure, Scale, drawing, percent, tag, words

if TYPE_CHECKING:
    from workbench.axis.jailbreak.rates import JailbreakTable, Rate

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 776, 230, 690, 26, 44
_SIGNS = {"success": "wbf-mark", "refused": "wbf-paper"}


def jailbreak_figure(found: JailbreakTable) -> Figure:
    """A row per arm: share of attempts that succeed (filled) and that are refused (open), with 95% intervals."""
    why = [] if found.testable is None else found.testable.split("; ")
    x, height = Scale(0.0, 1.0, _LEFT, _RIGHT), _TOP + _ROW * len(found.rates) + 36 + 18 * len(why)
    body = [words("Attacks that succeed (filled) and that are refused (open), 95% intervals", 4, 18, font_weight=600)]
    bottom = _TOP + _ROW * len(found.rates)
    for value in x.ticks(5):
        body.append(tag("line", x1=x(value), x2=x(value), y1=_TOP - 8, y2=bottom, class_="wbf-grid"))
        body.append(words(percent(value, 0), x(value), bottom + 18, anchor="middle", class_="wbf-soft wbf-num", font_size=11))
    for number, (arm, rates) in enumerate(found.rates.items()):
        y = _TOP + _ROW * (number + 0.5)
        body.append(words(arm, _LEFT - 12, y + 4, anchor="end", font_size=12.5))
        for measure, offset in (("refused", 5.0), ("success", -4.0)):
            body += _mark(rates[measure], x, y + offset, _SIGNS[measure])
    body += [words(line, 4, bottom + 42 + 18 * number, font_size=12, class_="wbf-soft") for number, line in enumerate(why)]
    return drawing(_WIDTH, height, body, title="Jailbreaks behind personas", description=" ".join(jailbreak_sentences(found)))


def jailbreak_sentences(found: JailbreakTable) -> list[str]:
    """Direct, persona and capped success in words, or why the claim cannot be tested, and what the judge is worth."""
    told = []
    for arm in [name for name in ("direct", "persona", "axis cap", "feature cap") if name in found.rates]:
        success, refused = (rate_words(found.rates[arm][name]) for name in ("success", "refused"))
        told.append(f"{arm}: {success} succeed, {refused} refused.")
    told.append(f"Personas add {rate_words(found.lift)}.")
    if found.testable is not None:
        told.append(found.testable[0].upper() + found.testable[1:] + ".")
    for arm, cost in found.capability.items():
        if (wanted := cost.get("wanted_kl")) is not None and abs(cost["reached_kl"] - wanted) > 0.2 * wanted:
            told.append(f"{arm}: not so, {cost['reached_kl']:.3g} nats per token against {wanted:.3g} of the cap.")
    if found.judge.get("auroc") is not None:
        ends = ", ".join(f"{end:.2f}" for end in found.judge["interval"])
        told.append(f"The judge agrees with people at AUROC {found.judge['auroc']:.2f} [{ends}] on {found.judge['n']} replies, "
                    f"none fitted on: a true difference is the measured one over {found.judge['informedness']:.2f}.")
    return told


def rate_words(rate: Rate) -> str:
    """`12.5% [6.0%, 20.1%]`."""
    low, high = rate.interval
    ends = "" if low is None or high is None else f" [{percent(low)}, {percent(high)}]"
    return percent(rate.value) + ends


def _mark(rate: Rate, x: Scale, y: float, sign: str) -> list[str]:
    if rate.value is None:
        return [words("not known", x(0.0) + 4, y + 4, class_="wbf-soft", font_size=11)]
    low, high = rate.interval
    ends = [] if low is None or high is None else [(x(low), y), (x(high), y)]
    line = [tag("path", d=_path(ends), class_="wbf-link", fill="none")] if ends else []
    shape = {"cx": x(rate.value), "cy": y, "r": 4.0}
    return [*line, tag("circle", class_=sign, **shape), tag("circle", class_="wbf-edge", **shape)]
