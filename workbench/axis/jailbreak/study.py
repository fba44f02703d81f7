"""The table: every arm on the same attempts, success and refusal with intervals, capability beside, and what can be claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.axis.capping.calibration import text_hash
from workbench.base.errors import WorkbenchError
from workbench.base.provenance import DataLedger
from workbench.steering.cost.capability import losses

from .attempts import DIRECT, Arm, Attempt
from .harness import AttackBench, Outcomes
from .judging import validate_success
from .rates import MEASURES, JailbreakTable, lift, not_testable, rate, reduction

PERSONA = "persona"


def jailbreak_table(
    bench: AttackBench, arms: Sequence[Arm], direct: Sequence[Attempt], behind: Sequence[Attempt], *,
    calibrated_on: Sequence[str] = (), seed: int = 0, told: Mapping[str, Any] | None = None,
) -> JailbreakTable:  # fmt: skip
    """The arms "direct" and "persona" (the model as it is), and `arms`, each on all attempts of its kind.

    `calibrated_on`: hashes (`text_hash`) of the texts behind limits and directions; a request among them is refused.
    """
    check_disjoint(calibrated_on, [one.user for one in (*direct, *behind)])
    every = [Arm(DIRECT, persona=False), Arm(PERSONA), *arms]
    if len({arm.name for arm in every}) < len(every):
        raise WorkbenchError(f"the arms {', '.join(arm.name for arm in every)}", "a name of its own for each", "rename one")
    found = {arm.name: bench.outcomes(arm, behind if arm.persona else direct) for arm in every}
    rates = {name: {measure: rate(one.rows, measure, seed=seed) for measure in MEASURES} for name, one in found.items()}
    lifted = lift(found[PERSONA], found[DIRECT], seed=seed)
    takes = {arm.name: reduction(found[arm.name], found[PERSONA if arm.persona else DIRECT], seed=seed) for arm in arms}
    return JailbreakTable(
        rates, takes, not_testable(rates[DIRECT]["success"], lifted), lifted, validate_success(bench.judge),
        _capability(bench, every, seed), _by_persona(found[PERSONA]), dict(told or {}),
    )  # fmt: skip


def check_disjoint(calibrated_on: Sequence[str], evaluated: Sequence[str]) -> None:
    """Refuse an evaluation on texts that limits or directions were found on."""
    ledger = DataLedger()
    ledger.add("calibration of caps", calibrated_on)
    ledger.add("evaluation of caps", [text_hash(text) for text in evaluated])


def _capability(bench: AttackBench, arms: Sequence[Arm], seed: int) -> dict[str, Any]:
    base, _ = bench.cost(Arm(PERSONA))
    found: dict[str, Any] = {}
    for arm in arms:
        if arm.name in (DIRECT, PERSONA):
            continue
        measured, kl = bench.cost(arm)
        lost = None if measured is None or base is None else losses(measured, base, seed=seed)
        found[arm.name] = {"losses": lost, "kl": kl, **arm.told}
    return found


def _by_persona(one: Outcomes) -> dict[str, float | None]:
    names = sorted({row["persona"] for row in one.rows})
    return {name: rate([row for row in one.rows if row["persona"] == name], "success").value for name in names}
