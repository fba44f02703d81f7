"""The few figures of an evaluation that the gate and the tables read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.saes.evaluation.gate import figure, of_these_weights
from workbench.saes.evaluation.stability import NULLS

if TYPE_CHECKING:
    from workbench.saes.interface import SparseAutoencoder


def headline(value: Mapping[str, Any], sae: SparseAutoencoder) -> dict[str, Any]:
    """The few figures that the gate and tables read; means over the held-out sets but the training corpus."""
    sets = [one for name, one in value["held_out"].items() if name != "corpus"]
    found: dict[str, Any] = {
        name: sum(one[name] for one in sets) / len(sets)
        for name in ("variance_explained", "l0", "ce_recovered", "kl", "kl_recovered", "cosine", "norm_ratio")
    }
    found["dead_share"] = _dead_share(sae)
    found["dense_share"] = sum(one["dense_share"] for one in sets) / len(sets)
    found |= {k: v for k, v in value["personas"]["summary"].items() if k != "persona_probe_auc_of"}
    means = (value["probing"] or {}).get("mean") or {}
    found["probe_auc_raw"] = (means.get("raw") or {}).get("all")
    found |= {f"probe_auc_k{k}": area for k, area in (means.get(sae.id) or {}).items()}
    table = value["expression"]
    if table:
        found |= {
            f"expression_{n}": energy for n, energy in zip(table["n_atoms"], table["mean"][sae.id], strict=True)
        }
    found["absorption_rate"] = value["splitting"][sae.id]["absorption_rate"]
    found["neighbour_share"] = value["splitting"][sae.id]["neighbour_share"]
    seeds = [one for name, one in (value["stability"] or {}).items() if name not in NULLS]
    if seeds:
        names = ("seed_matched", "seed_matched_null", "seed_matched_top30", "seed_matched_top30_null")
        found |= {name: seeds[0][name] for name in names}
    return found


def _dead_share(sae: SparseAutoencoder) -> float | None:
    """Training's own count, from the card or the densities saved with it, if the card says that it is of these weights.

    Counted anew it would need many tokens: few cannot tell a rare feature from a dead one.
    """
    if not of_these_weights(sae.card, sae):
        return None
    if (stated := figure(sae.card, "dead_share")) is not None:
        return stated
    return None if sae.density is None else float((sae.density <= 2e-10).double().mean())
