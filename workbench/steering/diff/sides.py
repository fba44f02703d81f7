"""The two models that are compared: what may stand for one, how it is opened, and what makes two of them a pair."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.models.identity import identify
from workbench.models.loading import load_model
from workbench.models.model import Model
from workbench.models.norms import neutral_text

if TYPE_CHECKING:
    Side = Model | str | Path | Callable[[], Model]

_SHAPE = ("architecture", "n_blocks", "d_model", "vocab_size")


@contextlib.contextmanager
def opened(side: Side, **loading: Any) -> Iterator[Model]:
    """The model of a side: a Model as it is; one that is loaded from a name or folder (`loading` goes to `load_model`), or made
    by a function (`partial(finetuned, model, folder)` puts an adapter on), is let go afterwards."""
    if isinstance(side, Model):
        yield side
        return
    model = side() if callable(side) else load_model(side, **loading)
    try:
        yield model
    finally:
        del model
        gc.collect()  # a model of some GiB in a cycle would otherwise stay beside the next one


def check_names(before: Side, after: Side) -> None:
    """Refuse two names that cannot be a pair before any weights are read; what is not known of a name is not checked."""
    if not (isinstance(before, str | Path) and isinstance(after, str | Path)):
        return
    one, other = identify(str(before)), identify(str(after))
    for key in ("model_type", "n_blocks", "d_model"):
        if None not in (one.get(key), other.get(key)) and one[key] != other[key]:
            raise _unlike(str(one["name"]), str(other["name"]), key, one[key], other[key])


def pair_key(model: Model) -> dict[str, Any]:
    """What two models of one architecture have in common: shape, and how they cut a text into tokens."""
    described = model.description()
    ids = model.tokenizer(neutral_text()[:400], add_special_tokens=False)["input_ids"]
    return {**{name: described[name] for name in _SHAPE}, "tokens of a text": tuple(ids)}


def check_pair(before: Model | str, key: dict[str, Any], after: Model) -> None:
    """Raise WorkbenchError unless `after` has the `pair_key` of `before`."""
    other = pair_key(after)
    name = before if isinstance(before, str) else before.name
    for one in key:
        if key[one] != other[one]:
            raise _unlike(name, after.name, one, key[one], other[one])


def _unlike(before: str, after: str, what: str, one: Any, other: Any) -> WorkbenchError:
    values = "" if what == "tokens of a text" else f" ({one} and {other})"
    return WorkbenchError(
        f"{before} and {after} differ in their {what.replace('_', ' ')}{values}",
        "a model before and after a fine-tune: one architecture, one tokenizer",
        "compare a model with its own fine-tune; `workbench transfer` carries vectors to another model",
    )
