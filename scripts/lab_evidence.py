"""Planted truth for docs/evidence/decomposition.json: what every method finds in worlds whose features are known.

    python scripts/lab_evidence.py              # prints both tables as JSON; some minutes on one core
    python scripts/lab_evidence.py --seeds 2    # a quick look
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from workbench.base.store import plain
from workbench.lab import LabResult, LabRow, run

N_SEEDS, N_FLAWED = 20, 10
FLAWED, FLAWED_IN = ("noisy", "split", "absorbed", "trained"), "correlated"


def planted(n_seeds: int = N_SEEDS) -> dict[str, dict[str, dict[str, Any]]]:
    """{difficulty: {method: figures}} with the perfect SAE, in every difficulty."""
    return _tables(run(seeds=n_seeds))


def flawed(n_seeds: int = N_FLAWED) -> dict[str, dict[str, dict[str, Any]]]:
    """{SAE: {method: figures}} with each flawed SAE, in the difficulty "correlated"."""
    return {sae: _tables(run(FLAWED_IN, sae=sae, seeds=n_seeds))[FLAWED_IN] for sae in FLAWED}


def _tables(result: LabResult) -> dict[str, dict[str, dict[str, Any]]]:
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for row in result.rows:
        tables.setdefault(row.difficulty, {})[row.method] = _figures(row, result)
    return tables


def _figures(row: LabRow, result: LabResult) -> dict[str, Any]:
    """{fdr_at_05, power_vs_oracle, sign_errors, energy_error, fdr_at_1, fdr_at_2, n, seeds and the rest of the row}."""
    figures = {name: value for name, value in asdict(row).items() if name not in ("difficulty", "method", "n_seeds")}
    overlap = {"zero_vector_overlap": result.overlaps[row.difficulty]} if row.method == "naive" else {}
    return plain({**figures, **overlap, "n": row.n_seeds, "seeds": list(result.seeds)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=None)
    chosen = parser.parse_args().seeds
    both = {"planted": planted(chosen or N_SEEDS), "flawed": flawed(chosen or N_FLAWED)}
    print(json.dumps(both, indent=1))
