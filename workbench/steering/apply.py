"""Edits in force: around our own generation, `model.hf.generate(...)`, a bare forward pass or a training step.

    with steered(model, Edit.add(vector, 0.5, scope="predicting")):
        model.hf.generate(**inputs)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.maths.interventions import fix_coordinates, limit_coordinates, solver
from workbench.models.editing import editing
from workbench.models.hookpoints import HookPoint
from workbench.models.scopes import Places
from workbench.steering.composition import LARGE_DOSE, Composition, added, compose
from workbench.steering.edits import Edit

if TYPE_CHECKING:
    from workbench.models.model import Model

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def steered(
    model: Model, edits: Edit | Iterable[Edit] | Composition, prompt_width: int | Sequence[int] | None = None
) -> Iterator[Composition]:
    """A context in which `edits` act on every forward pass of `model`; it gives the Composition that is in force.

    Sink tokens (norm above ten medians) are never edited. Gradients flow through every edit. `prompt_width` is the column
    at which the response begins, for passes over prompt and response together, for chunked prefill, for assisted decoding and
    for decoding without a cache (`use_cache=False`): one for all rows, or one per row. Otherwise the first pass after an empty
    cache is the prompt. What is given per row follows the rows of `models.generation.generate`, `capture` and the like as they
    sort and drop them; in other batches rows count as they stand, beams of one prompt together. Where the model checkpoints its
    gradients, `backward` runs the blocks again: call it inside the context.
    """
    composed = edits if isinstance(edits, Composition) else compose(edits)
    _check_fits(model, composed)
    medians = dict(zip(composed.measured_at, model.norm_medians(composed.measured_at).tolist(), strict=True))
    if (dose := composed.dose_in_norms(medians)) > LARGE_DOSE:
        logger.warning("The edits add %.2f median token norms; above about %.1f text tends to fall apart.", dose, LARGE_DOSE)
    functions = {hook: EditAt(composed.at(hook), medians) for hook in composed.hooks}
    with editing(model, functions, prompt_width=prompt_width):
        yield composed


class EditAt:
    """What the edits of one hook do to h [batch, seq, d_model]: edits that share scope and rows form one group."""

    def __init__(self, edits: Sequence[Edit], medians: Mapping[HookPoint, float]) -> None:
        self.edits, self.medians = edits, medians
        self.groups = tuple(dict.fromkeys((edit.scope, edit.rows) for edit in edits))
        self._steps: dict[tuple[int, ...], list[Callable[[Tensor, Places], Tensor]]] = {}

    def __call__(self, h: Tensor, places: Places) -> Tensor:
        changed = h
        for acting, tokens in places.kept(self.groups, lambda: self._tokens(places)).items():
            changed = torch.where(tokens.to(h.device)[..., None], self._edited(h, acting, places), changed)
        return changed

    def _tokens(self, places: Places) -> dict[tuple[int, ...], Tensor]:
        """Which tokens [batch, seq] have which groups acting on them; none of the tokens that have none."""
        masks = torch.stack([self._mask(scope, rows, places) for scope, rows in self.groups])
        patterns, which = masks.flatten(1).unique(dim=1, return_inverse=True)
        acting = [tuple(pattern.nonzero().flatten().tolist()) for pattern in patterns.unbind(dim=1)]
        return {groups: (which == number).view(places.shape) for number, groups in enumerate(acting) if groups}

    @staticmethod
    def _mask(scope: str, rows: tuple[bool, ...] | None, places: Places) -> Tensor:
        mask = places.within(scope)
        return mask if rows is None else mask & torch.tensor(rows)[places.rows(len(rows))][:, None]

    def _edited(self, h: Tensor, acting: tuple[int, ...], places: Places) -> Tensor:
        if acting not in self._steps:
            groups = [self.groups[number] for number in acting]
            self._steps[acting] = list(_steps([e for e in self.edits if (e.scope, e.rows) in groups], self.medians))
        for step in self._steps[acting]:
            h = step(h, places)
        return h


def _steps(edits: Sequence[Edit], medians: Mapping[HookPoint, float]) -> Iterator[Callable[[Tensor, Places], Tensor]]:
    """The four steps of `steering.composition`, those that are needed."""
    adds, features = [edit for edit in edits if edit.kind == "add"], [edit for edit in edits if edit.of_feature]
    if fixed := [edit for edit in edits if edit.kind in ("ablate", "clamp")]:
        yield _fixing(fixed)
    if features:
        yield _setting(features)
    if adds:
        yield _adding(adds, medians)
    if limits := [edit for edit in edits if edit.kind in ("cap", "floor")]:
        yield _limiting(limits)


def _fixing(edits: Sequence[Edit]) -> Callable[[Tensor, Places], Tensor]:
    units = torch.stack([edit.direction for edit in edits])
    inverse, values = solver(units), _table(edits)

    def fix(h: Tensor, places: Places) -> Tensor:
        return fix_coordinates(h, units.to(h.device), _for_rows(values, h, places), inverse.to(h.device))

    return fix


def _setting(edits: Sequence[Edit]) -> Callable[[Tensor, Places], Tensor]:
    directions, values = torch.stack([edit.direction for edit in edits]), _table(edits)
    most, least = (torch.tensor([edit.kind == kind for edit in edits]) for kind in ("at most", "at least"))

    def put(h: Tensor, places: Places) -> Tensor:
        codes, wanted = _codes(edits, h), _for_rows(values, h, places)
        kept = (most.to(h.device) & (codes <= wanted)) | (least.to(h.device) & (codes >= wanted))
        lacking = torch.where(kept, 0.0, wanted - codes)
        changed = (h.float() + lacking @ directions.to(h.device)).to(h.dtype)
        return torch.where((lacking != 0).any(dim=-1, keepdim=True), changed, h)

    return put


def _codes(edits: Sequence[Edit], h: Tensor) -> Tensor:
    """The activations [batch, seq, n_edits] of the edits' features; each SAE reads h once."""
    found: list[Tensor] = [h] * len(edits)
    for sae in {id(of.sae): of.sae for edit in edits if (of := edit.of_feature)}.values():
        mine = [(place, of.index) for place, edit in enumerate(edits) if (of := edit.of_feature) and of.sae is sae]
        codes = sae.encode(h.float())[..., [index for _, index in mine]].to(h.device)
        for (place, _), code in zip(mine, codes.unbind(dim=-1), strict=True):
            found[place] = code
    return torch.stack(found, dim=-1)


def _adding(edits: Sequence[Edit], medians: Mapping[HookPoint, float]) -> Callable[[Tensor, Places], Tensor]:
    delta = added(edits, medians)

    def add(h: Tensor, places: Places) -> Tensor:
        mine = _for_rows(delta, h, places)
        changed = (h.to(torch.promote_types(h.dtype, delta.dtype)) + mine).to(h.dtype)
        return torch.where((mine != 0).any(dim=-1, keepdim=True), changed, h)

    return add


def _limiting(edits: Sequence[Edit]) -> Callable[[Tensor, Places], Tensor]:
    signs = torch.tensor([1.0 if edit.kind == "cap" else -1.0 for edit in edits])
    units = torch.stack([edit.direction for edit in edits]) * signs[:, None]
    bounds = _table(edits) * signs

    def limit(h: Tensor, places: Places) -> Tensor:
        return limit_coordinates(h, units.to(h.device), _for_rows(bounds, h, places))

    return limit


def _table(edits: Sequence[Edit]) -> Tensor:
    """The amounts [n_rows or 1, n_edits]."""
    columns = torch.broadcast_tensors(*(torch.tensor(edit.amounts, dtype=torch.float32) for edit in edits))
    return torch.stack(columns, dim=1)


def _for_rows(values: Tensor, h: Tensor, places: Places) -> Tensor:
    """`values` [n_rows or 1, k] for the rows of this pass: [batch or 1, 1, k], on the device of `h`."""
    chosen = values if len(values) == 1 else values[places.rows(len(values))]
    return chosen[:, None].to(h.device)


def _check_fits(model: Model, composed: Composition) -> None:
    for edit in composed.edits:
        if edit.direction.shape[0] != model.d_model:
            raise WorkbenchError(
                f"{edit.label} at {edit.hook} has d_model={edit.direction.shape[0]}, {model.name} has {model.d_model}",
                "a direction of the same model",
                "use a vector that was computed on this model",
            )
