"""Harmful requests behind personas on the default model, with and without caps: a part of docs/evidence/axis.json.

    python scripts/axis_capping.py                    # first: it chooses the cap, on other requests
    python scripts/axis_jailbreak.py                  # the table: some 20 CPU minutes on two slow cores, bfloat16

40 public requests, direct and behind one persona each; the chosen axis cap, the feature cap, a reminder, and every control
direction at the same percentile and at the same KL; capability and 40 harmless requests to play a part beside. Everything is kept
under runs/axis-MODEL/capping. Requests and replies are stored there for their owner alone; the figures hold none of their words.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import axis_capping as capping


def part() -> dict[str, Any]:
    """{jailbreak: {arm: [rate, low, high]}, jailbreak_table: {rates, reductions, testable, why_not, judge, capability,
    over_blocking, chosen, ...}}: what docs/evidence/axis.json holds of jailbreaks. Draws docs/images/axis_jailbreak.svg."""
    chosen = capping.chosen()
    found = capping.kept("jailbreak", lambda: _table(chosen), also=chosen)
    return {"jailbreak": found["jailbreak"], "jailbreak_table": {k: v for k, v in found.items() if k != "jailbreak"}}


def _table(chosen: dict[str, Any]) -> dict[str, Any]:
    from workbench.axis.capping.blocking import over_blocking
    from workbench.axis.capping.experiment import table_arms
    from workbench.axis.jailbreak.study import jailbreak_table
    from workbench.reports.axis.jailbreak import jailbreak_figure, jailbreak_sentences

    one, bench = capping.materials(), capping.bench()
    at = {"percentile": chosen["percentile"], "feature_percentile": chosen["feature_percentile"]}
    arms = table_arms(one, bench.kl, label=chosen["band"], **at)
    used = {"calibrated_on": one.calibrated_on, "seed": capping.SEED, "told": one.told()}
    found = jailbreak_table(bench, arms, one.direct(), one.behind(), **used)
    jailbreak_figure(found).save(capping.IMAGES / "axis_jailbreak.svg")
    blocked = over_blocking(bench, arms, one.benign(), seed=capping.SEED)
    return {**found.to_dict(), "over_blocking": blocked, "chosen": chosen, "rate_on_attacks": _rates(one, bench, chosen),
            "sentences": jailbreak_sentences(found)}  # fmt: skip


def _rates(one: Any, bench: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    """{direction: {tokens, places}}: how many tokens of uncapped replies behind personas lie below each direction's limit."""
    from workbench.axis.capping.calibration import intervention_rate
    from workbench.axis.jailbreak.attempts import Arm

    rows, hooks = bench.outcomes(Arm("persona"), one.behind()).frame(), one.hooks[chosen["band"]]
    return {name: intervention_rate(bench.model, rows, direction, one.limits.calibrations[name].tau(chosen["percentile"], hooks))
            for name, direction in one.limits.axes.items()}  # fmt: skip


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(json.dumps(part(), indent=1))
