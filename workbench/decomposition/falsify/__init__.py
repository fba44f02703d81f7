"""Is a persona vector, and its decomposition, what it claims to be, or an artefact? Checks fixed beforehand, red or green.

    from workbench.decomposition.falsify import falsify
    verdict = falsify(vector, sae, other_seed=load_sae("..."), controls={"soft-frozen": load_sae("...")})
    verdict.headline()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.provenance import provenance
from workbench.base.tensors import tensor_hash
from workbench.decomposition.checks import check_same_site, check_trained_on
from workbench.decomposition.decompose import decompose
from workbench.decomposition.methods import decoder_of
from workbench.decomposition.placebos import PlaceboCodes
from workbench.decomposition.result import Decomposition

from . import answers, direction, numbers
from .criteria import CRITERIA, FAIL, NOT_TESTED, PASS, SHOWN, Check
from .material import N_SAMPLED, Answers, Material, read_answers
from .result import Falsification

if TYPE_CHECKING:
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector

__all__ = ["CRITERIA", "FAIL", "NOT_TESTED", "PASS", "SHOWN", "Check", "Falsification", "activations_of", "falsify",
           "soft_frozen_check"]  # fmt: skip

N_BOOTSTRAP = 100
CHECKS: tuple[Callable[[Material], Check], ...] = (
    answers.length, answers.format_, answers.token, answers.reproducibility, numbers.separation, numbers.placebo,
    numbers.same_against_same, direction.dictionary, direction.soft_frozen, direction.seed, direction.own_site,
    direction.neighbours, direction.subspace, direction.generic, numbers.zero_vector,
)  # fmt: skip
"""In the order of the page; a new one needs a line here and one in `criteria`."""


def falsify(
    vector: PersonaVector,
    sae: Any,
    *,
    parts: Decomposition | None = None,
    model: Any = None,
    tokenizer: Any = None,
    placebos: PlaceboCodes | None = None,
    placebo_vectors: PlaceboVectors | None = None,
    controls: Mapping[str, Any] | None = None,
    other_seed: Any = None,
    reference: PersonaVector | None = None,
    seed: int = 0,
) -> Falsification:
    """Put `vector` and its decomposition on `sae` to every check of `CRITERIA`; what cannot be checked is "not tested".

    `parts` is its decomposition (made here without one), `model` reads answers whose tokens are not stored, `tokenizer` gives
    tokens their words (default: the model's). `placebos` (default: those beside the SAE's card) and `placebo_vectors` (for the
    neighbouring blocks) are the placebo contrasts; `controls` {name: SAE} soft-frozen SAEs of the same size; `other_seed` an
    SAE of the same site from another seed; `reference` another vector of the same model with stored tokens, whose activations
    serve a vector without any. Signs as everywhere: v points toward the trait. The same seed gives the same verdict on the same
    machine.

    Raises WorkbenchError when vector, SAE, controls or reference do not belong together, and where `decompose` does.
    Sources: docs/falsify.md names those of every threshold.
    """
    check_same_site(vector, sae)
    against = {name: _of_same_site(other, sae) for name, other in (controls or {}).items()}
    beside = placebos or PlaceboCodes.beside(sae)
    if parts is None:
        parts = decompose(vector, sae, model=model, causal=False, placebos=beside, n_bootstrap=N_BOOTSTRAP, seed=seed)
    _check_parts(parts, vector, sae)
    read = _answers(vector, sae, model, tokenizer or getattr(model, "tokenizer", None))
    held = read.tokens if read is not None else None if reference is None else activations_of(reference, sae)
    given = Material(
        vector, sae, vector.at(sae.hook).double().cpu(), decoder_of(sae), parts, read,
        held, beside, placebo_vectors, against,
        None if other_seed is None else _of_same_site(other_seed, sae), seed,
    )  # fmt: skip
    made = provenance(seed=seed, inputs=_inputs(given), controls=sorted(against), other_seed=getattr(other_seed, "id", None))
    return Falsification(vector.trait, _described(given), dict(parts.sae), tuple(check(given) for check in CHECKS),
                         tuple(parts.warnings), made)  # fmt: skip


def soft_frozen_check(vector: PersonaVector, sae: Any, controls: Mapping[str, Any], *, model: Any = None, seed: int = 0) -> Check:
    """The check "soft_frozen" alone: neither placebos nor a decomposition are needed for it. Errors as in `falsify`."""
    check_same_site(vector, sae)
    against = {name: _of_same_site(other, sae) for name, other in controls.items()}
    own = vector.at(sae.hook).double().cpu()
    return direction.against_controls(own, decoder_of(sae), _answers(vector, sae, model, None), against, seed=seed)


def _of_same_site(other: Any, sae: Any) -> Tensor:
    """The decoder of another SAE; a WorkbenchError when it reads another model or site."""
    if other.hook != sae.hook or other.d_model != sae.d_model or other.model_name != sae.model_name:
        raise WorkbenchError(
            f"the SAE {other.id} reads {other.model_name} {other.hook}, {sae.id} reads {sae.model_name} {sae.hook}",
            "controls and seeds of the same model and site",
            f"choose an SAE of {sae.hook} (`workbench sae list`), or train one",
        )
    return decoder_of(other)


def _check_parts(parts: Decomposition, vector: PersonaVector, sae: Any) -> None:
    same = parts.sae.get("weights_hash") == sae.weights_hash
    if not same or parts.vector.get("sha256") != tensor_hash(vector.at(sae.hook).float().cpu()):
        other = f"another {'vector' if same else 'SAE'} ({parts.trait} on {parts.sae.get('id')})"
        raise WorkbenchError(f"the decomposition is of {other}", f"that of {vector.trait} on {sae.id}",
                             "leave `parts` out: it is made again")  # fmt: skip


def _answers(vector: PersonaVector, sae: Any, model: Any, tokenizer: Any) -> Answers | None:
    rows: Any = vector.rows
    if not len(rows):
        return None
    from workbench.decomposition.decompose import tokens_of

    used = rows[(rows["weight"].fillna(0) != 0).to_numpy()].reset_index(drop=True)
    return read_answers(used, tokens_of(vector, sae.hook, model, used), tokenizer)


def activations_of(reference: PersonaVector, sae: Any) -> Tensor:
    """Some 8,192 token activations `[m, d_model]` (float32) of a vector's answers at the SAE's hook.

    Raises WorkbenchError when they are not stored, or of another model than the SAE's.
    """
    check_trained_on(reference.model, sae)
    source = reference.tokens
    if source is None or sae.hook not in source.hooks:
        raise WorkbenchError(f"the reference {reference.trait!r} has no stored tokens at {sae.hook}",
                             "a run of this model whose token activations are kept at the SAE's hook",
                             "extract any trait with this SAE, and give its run folder as --reference")  # fmt: skip
    keep = -(-N_SAMPLED // max(1, len(reference.rows)))
    return torch.cat([held[:: max(1, len(held) // keep)][:keep].float() for _, held in source.rows(sae.hook) if len(held)])


def _described(given: Material) -> dict[str, Any]:
    vector = given.vector
    imported = (vector.provenance.get("imported") or {}) if vector.provenance else {}
    n_rows = 0 if given.answers is None else len(given.answers.frame)
    return {"trait": vector.trait, "model": vector.model, "hook": str(vector.hook), "sae_hook": str(given.sae.hook),
            "norm": float(given.direction.norm()), "sha256": tensor_hash(given.direction.float()), "n_rows": n_rows,
            "from": imported}  # fmt: skip


def _inputs(given: Material) -> dict[str, str]:
    found = {"model": given.vector.model.get("weights_hash"), "sae": given.sae.weights_hash,
             "vector": tensor_hash(given.vector.directions)}  # fmt: skip
    return {name: str(value) for name, value in found.items() if value}
