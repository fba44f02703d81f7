"""What contrasts that are no persona do to an SAE's features: the null that a trait's features have to beat.

With enough rollouts nearly every active feature differs between any two system prompts, so a small p over questions says
that two prompts differ, not that a persona is at work. Here a feature of a trait is compared with what two dozen placebo
contrasts (formal / casual, pirate / librarian, ...) do to the *same* feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.provenance import provenance
from workbench.base.store import sha256_file
from workbench.base.tensors import load_artifact, save_artifact
from workbench.base.untrusted import refuses_damage
from workbench.maths.statistics import benjamini_hochberg

from .methods import decoder_of
from .rows import read_row_codes
from .shares import Design, account, question_contributions

KIND, SCHEMA = "placebo_codes", 1
FOLDER = "placebos"
"""Beside an SAE's card."""
Q_LEVEL = 0.05
MIN_PLACEBOS = 8
_TENSORS = ("vectors", "delta_codes", "errors")


@dataclass(frozen=True, eq=False, repr=False)
class PlaceboCodes(Shown):
    """Every placebo contrast on one SAE: `vectors [n, d_model]`, and per feature `[n, d_sae]` its difference of mean codes
    (`delta_codes`, positive minus negative arm) with the standard error over questions (`errors`)."""

    names: tuple[str, ...]
    related: tuple[tuple[str, ...], ...]
    """Per placebo the traits that it comes close to; those do not count for them."""
    vectors: Tensor
    delta_codes: Tensor
    errors: Tensor
    sae: dict[str, Any]
    """id, hook, weights_hash."""
    model: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def unrelated(self, trait: str | None) -> list[int]:
        """The places of the placebos that do not come close to `trait`."""
        return [i for i, close in enumerate(self.related) if trait not in close]

    def check(self, sae: Any) -> None:
        """Raise WorkbenchError unless these are codes of this very SAE."""
        if self.sae.get("weights_hash") != sae.weights_hash:
            raise WorkbenchError(
                f"the placebo codes are of {self.sae.get('id')} ({str(self.sae.get('weights_hash'))[:12]})",
                f"those of {sae.id} ({sae.weights_hash[:12]})",
                "delete them, or make them for this SAE (scripts/placebo_codes.py)",
            )

    def save(self, folder: str | Path) -> Path:
        """Write the tensors (16 bits) and, last, the JSON; returns the JSON's path."""
        document = {"names": self.names, "related": self.related, "sae": self.sae, "model": self.model,
                    "provenance": self.provenance}  # fmt: skip
        return save_artifact(Path(folder), KIND, SCHEMA, document, {name: getattr(self, name).half() for name in _TENSORS})

    @classmethod
    @refuses_damage
    def load(cls, folder: str | Path) -> PlaceboCodes:
        """What `save` wrote."""
        document, tensors = load_artifact(Path(folder), KIND, SCHEMA)
        related = tuple(map(tuple, document["related"]))
        stored = {name: tensors[name].float() for name in _TENSORS}
        return cls(tuple(document["names"]), related, **stored, sae=document["sae"], model=document["model"],
                   provenance=document["provenance"])  # fmt: skip

    @classmethod
    def beside(cls, sae: Any) -> PlaceboCodes | None:
        """Those in the SAE's own folder, None when there are none."""
        folder = None if sae.folder is None else Path(sae.folder) / FOLDER
        return cls.load(folder) if folder is not None and (folder / f"{KIND}.json").is_file() else None


def placebo_codes(folder: str | Path, model: Any, sae: Any) -> PlaceboCodes:
    """The codes of all placebo contrasts whose rollouts lie in `folder` (`workbench extract --all` samples them).

    Each contrast is made as a trait's vector is, but from all rows: no judge knows it. Its tokens are read through the
    model once more (some 350,000 tokens by default); memory is that of one contrast. Raises WorkbenchError for a folder
    without placebos, or with those of another model.
    """
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.reencoding import recapture_tokens

    known = PlaceboVectors.load(folder)
    if known.model.get("weights_hash") != model.weights_hash:
        raise WorkbenchError(
            f"the placebos in {folder} are of {known.model.get('name')} ({str(known.model.get('weights_hash'))[:12]})",
            f"placebos of {model.name} ({model.weights_hash[:12]})",
            f"sample them: workbench extract --all --model {model.name}",
        )
    decoder = decoder_of(sae)
    found = []
    with track("placebo contrasts on the SAE", len(known), "contrasts") as step:
        for name in known.names:
            rows, design = contrast_rows(Path(folder) / name)
            codes = read_row_codes(recapture_tokens(model, rows, sae.hook), rows["id"].astype(str).tolist(), sae)
            whole = account(codes, design, decoder)
            errors = standard_errors(question_contributions(codes, design))
            found.append((whole.vector.float(), whole.delta_codes.float(), errors))
            step()
    stacked = dict(zip(_TENSORS, map(torch.stack, zip(*found, strict=True)), strict=True))
    hashes = {"sae": sae.weights_hash, "model": model.weights_hash,
              "placebo_vectors": sha256_file(Path(folder) / "placebo_vectors.json")}  # fmt: skip
    described = {"id": sae.id, "hook": str(sae.hook), "weights_hash": sae.weights_hash}
    made = provenance(seed=known.provenance.get("seed"), inputs=hashes)
    return PlaceboCodes(known.names, known.related, **stacked, sae=described, model=model.description(), provenance=made)


def codes_of_runs(folder: str | Path, model: Callable[[], Any], sae: Any) -> PlaceboCodes:
    """`placebo_codes`, made once per SAE and kept in `folder`/codes-<hash of the SAE>; `model()` gives the model."""
    kept = Path(folder) / f"codes-{sae.weights_hash[:16]}"
    if (kept / f"{KIND}.json").is_file():
        found = PlaceboCodes.load(kept)
        if found.provenance["inputs"].get("placebo_vectors") == sha256_file(Path(folder) / "placebo_vectors.json"):
            return found
    found = placebo_codes(folder, model(), sae)
    found.save(kept)
    return found


def contrast_rows(folder: Path) -> tuple[Any, Design]:
    """The usable rows of a contrast, and the design of its difference of means."""
    import pandas as pd

    from workbench.base.store import read_parquet
    from workbench.personas.extraction import contrast_weights
    from workbench.personas.judging import usable_mask

    files = sorted((folder / "rollouts").glob("part-*.parquet"))
    if not files:
        raise WorkbenchError(f"{folder} holds no rollouts", "those of a placebo contrast", "run `workbench extract --all` again")
    rows = pd.concat([read_parquet(file).to_pandas() for file in files], ignore_index=True)
    weights = contrast_weights(rows, usable_mask(rows), "positive", "negative")
    used = rows[weights != 0].reset_index(drop=True)
    names = (used[name].astype(str).tolist() for name in ("question_id", "instruction_id"))
    return used, Design.of(weights[weights != 0].tolist(), *names)


def standard_errors(contributions: Tensor) -> Tensor:
    """Standard error of each feature's difference of mean codes, from its per-question contributions [Q, d_sae]; float32.

    The contributions sum to the difference, so Q times one is a question's own difference.
    """
    n = contributions.shape[0]
    return (contributions.std(dim=0) * n**0.5).float() if n > 1 else torch.full(contributions.shape[1:], torch.inf)


@dataclass(frozen=True, eq=False, repr=False)
class Specificity(Shown):
    """Per feature `[d_sae]`: how many of its own placebo spreads it moves (`score`, signed), p and BH q over active features
    (NaN where it is silent); and how many features each placebo would have got by the same rule, left out of its own null."""

    score: Tensor
    p_value: Tensor
    q_value: Tensor
    placebo_counts: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many features are trait-specific at q <= .05."""
        return int((self.q_value <= Q_LEVEL).sum())


def specificity(delta: Tensor, errors: Tensor, placebos: PlaceboCodes, *, trait: str | None = None) -> Specificity:
    """Does the trait move a feature further than placebo contrasts move it?

    score_j = delta_j / sqrt(tau_j^2 + errors_j^2) with `delta [d_sae]` the trait's difference of mean codes, `errors [d_sae]`
    its standard error over questions, and tau_j^2 = mean over placebos of (delta_pj^2 - errors_pj^2), at least 0: how far
    contrasts of that kind truly move the feature (random effects; DerSimonian and Laird 1986). The orientation of a placebo
    is arbitrary, so its effects have mean 0. Under the null that the trait is one more contrast of that kind the score is
    about Student's t with one degree of freedom per placebo; p is two-sided. Contrasts have features of their own (a
    pirate's are not a librarian's) and t is an approximation, so `placebo_counts` says what each placebo gets: a trait that
    has no more than they do shows nothing. A trait with more answers per cell than the placebos has smaller errors and is
    favoured by that.

    Raises WorkbenchError with fewer than 8 placebos that are not close to the trait.
    """
    known = placebos.errors.isfinite().all(dim=1) & placebos.delta_codes.isfinite().all(dim=1)
    used = [place for place in placebos.unrelated(trait) if known[place]]  # one with a single question says nothing
    if len(used) < MIN_PLACEBOS:
        raise WorkbenchError(f"{len(used)} placebo contrasts", f"{MIN_PLACEBOS} or more", "sample more of them")
    deltas, own = placebos.delta_codes[used].double(), placebos.errors[used].double()
    truly = deltas.square() - own.square()
    score, p_value, q_value = _tested(delta.double(), errors.double(), truly)
    everyone = torch.arange(len(used))
    counts = [int((_tested(deltas[k], own[k], truly[everyone != k])[2] <= Q_LEVEL).sum()) for k in range(len(used))]
    return Specificity(score.float(), p_value, q_value, tuple(counts))


def _tested(delta: Tensor, errors: Tensor, truly: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """score, p, q; `truly` [n, d_sae] are the placebos' squared effects less their squared errors."""
    active = (delta != 0) & errors.isfinite()
    spread = (truly.mean(dim=0).clamp_min(0) + errors.square()).sqrt()
    score = torch.where(active, delta / spread.clamp_min(torch.finfo(torch.float64).tiny), torch.zeros_like(delta))
    p_value = torch.from_numpy(2 * stats.t.sf(score.abs().numpy(), df=len(truly)))
    p_value = torch.where(active, p_value, torch.full_like(p_value, torch.nan))
    return score, p_value, benjamini_hochberg(p_value)
