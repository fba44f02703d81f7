"""Which tokens an edit acts on: exact at prefill and at every later step, with padding on either side.

A token's column is its place in the padded sequence: tokens in the cache + its place in the pass. The response begins
at column `prompt_width`; a token of the response only exists in the residual stream once it is fed back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..base.errors import WorkbenchError, unknown_name

if TYPE_CHECKING:
    from .model import Model

Scope = Literal["prompt", "response", "predicting", "all"]
"""prompt: tokens of the prompt; response: tokens of the response, without the prompt's last; predicting: where tokens of the
response are predicted, which is the prompt's last token and every token of the response; all: both."""
SCOPES: tuple[str, ...] = get_args(Scope)


def checked_scope(scope: str) -> Scope:
    """`scope` itself, or a WorkbenchError that lists the scopes there are."""
    if scope not in SCOPES:
        raise unknown_name("scope", scope, SCOPES)
    return scope  # pyright: ignore[reportReturnType]


class Places:
    """The tokens of one forward pass [batch, seq]: their columns, their rows, and where each row's response begins."""

    def __init__(self, shape: tuple[int, int], start: int, widths: Tensor, real: Tensor | None, rows: list[int] | None) -> None:
        self.shape, self.start, self.widths, self.real, self._rows = shape, start, widths, real, rows
        self._kept: dict[Any, Any] = {}

    def within(self, scope: str) -> Tensor:
        """[batch, seq] (bool, on the CPU): the tokens of `scope`, padding left out."""
        return self.kept(scope, lambda: self._mask(scope))

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, worked out once per pass however many hooks ask."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _mask(self, scope: str) -> Tensor:
        columns = self.start + torch.arange(self.shape[1])
        width = self.widths[:, None]
        inside = {
            "prompt": lambda: columns < width,
            "response": lambda: columns >= width,
            "predicting": lambda: columns >= width - 1,
            "all": lambda: (columns >= 0).expand(self.shape),
        }[scope]()
        return inside if self.real is None else inside & self.real

    def rows(self, n_rows: int) -> list[int]:
        """The row [batch] that each sequence of the pass belongs to, when rows 0 .. n_rows - 1 were asked for.

        Our own generation says so itself (it sorts rows and drops finished ones); beams of one row stand together.
        """
        batch = self.shape[0]
        if self._rows is not None and max(self._rows) < n_rows:
            return self._rows
        if self._rows is None and batch % n_rows == 0:
            return [place // (batch // n_rows) for place in range(batch)]
        found = batch if self._rows is None else max(self._rows) + 1
        raise WorkbenchError(
            f"an edit with values for {n_rows} rows met a batch of {found} sequences",
            "one value per sequence (beams of one prompt share theirs)",
            "give one value for all rows, or as many as there are prompts",
        )


class PassWatch:
    """Knows, while it is attached, what the model's decoder is running: `places` of the pass that runs now.

    `prompt_width`: the column at which the response begins, one for all rows or one per row. Without it, the first
    pass after an empty cache is the prompt (up to each row's last token that is not padding); so is the first pass of all.
    """

    def __init__(self, model: Model, prompt_width: int | Sequence[int] | None = None) -> None:
        self.model, self.given = model, _checked_width(prompt_width)
        self.places: Places | None = None
        self._of_cache: WeakKeyDictionary[Any, dict[int, int]] = WeakKeyDictionary()
        self._latest: dict[int, int] = {}

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """A context in which every pass through the model's decoder is seen."""
        handle = self.model.decoder.register_forward_pre_hook(self._look, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            self.places = None

    def of(self, tensor: Tensor) -> Places:
        """The places of `tensor` [batch, seq, d_model], which a hook of this pass was given."""
        if self.places is None or self.places.shape != tuple(tensor.shape[:2]):
            raise WorkbenchError(
                f"activations of shape {tuple(tensor.shape)} in a pass whose tokens are not known",
                "a pass through the whole decoder",
                "end the edits before running single blocks",
            )
        return self.places

    def _look(self, _module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        if self.model.hooks_suspended:
            return
        ids = kwargs.get("input_ids", args[0] if args else None)
        ids = kwargs["inputs_embeds"] if ids is None else ids
        batch, seq = ids.shape[:2]
        cache = next((kwargs[name] for name in ("past_key_values", "cache") if kwargs.get(name) is not None), None)
        start = int(cache.get_seq_length()) if cache is not None else 0
        real = _real(kwargs.get("attention_mask"), start, seq)
        rows = self.model.batch_rows
        self.places = Places((batch, seq), start, self._widths(cache, start, batch, seq, real, rows), real, rows)

    def _widths(
        self, cache: Any, start: int, batch: int, seq: int, real: Tensor | None, rows: list[int] | None
    ) -> Tensor:  # fmt: skip
        if isinstance(self.given, int):
            return torch.full((batch,), self.given)
        if self.given is not None:
            places = Places((batch, seq), start, torch.empty(0), None, rows)
            return torch.tensor([self.given[row] for row in places.rows(len(self.given))])
        names = rows if rows is not None else range(batch)
        known = self._of_cache.get(cache, self._latest) if cache is not None else self._latest
        if start == 0 or not known or (rows is not None and not known.keys() >= set(rows)):
            known = dict(zip(names, _last_real(start, seq, batch, real), strict=True))
        self._latest = known
        if cache is not None:
            self._of_cache[cache] = known
        if rows is None and len(known) != batch:  # beams that appeared after the prompt
            spread = Places((batch, seq), start, torch.empty(0), None, None).rows(len(known))
            return torch.tensor([list(known.values())[row] for row in spread])
        return torch.tensor([known[name] for name in names])


def _real(mask: Any, start: int, seq: int) -> Tensor | None:
    """[batch, seq] (bool, CPU): the pass's tokens that are not padding; None when all are (or the mask is of another kind)."""
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.shape[1] < start + seq:
        return None
    real = mask[:, start : start + seq].bool().cpu()
    return None if bool(real.all()) else real


def _last_real(start: int, seq: int, batch: int, real: Tensor | None) -> list[int]:
    """The column after each row's last token that is not padding."""
    if real is None:
        return [start + seq] * batch
    return (start + seq - real.flip(1).int().argmax(dim=1)).tolist()


def _checked_width(width: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    if width is None:
        return None
    several = (width,) if isinstance(width, int) else tuple(map(int, width))
    if not several or not all(isinstance(one, int) and one >= 1 for one in several):
        raise WorkbenchError(
            f"the prompt's width is {width}", "the column at which the response begins, at least 1", "pass an int, or one per row"
        )
    return width if isinstance(width, int) else several
