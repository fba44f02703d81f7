"""How values show themselves: briefly as text, and in a notebook through a registry, without importing any drawing.

Value types inherit from `Shown`. The package names the module that registers what a notebook shows; it is imported when the
first value is shown, so that `import workbench` stays light.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

MAX_REPR, MAX_WORDS, MAX_ITEMS = 320, 60, 4

_PROVIDERS: list[str] = []
_DISPLAYS: dict[str, Callable[[Any], Any]] = {}


def register(type_name: str, function: Callable[[Any], Any]) -> None:
    """Show values of the class with this qualified name (`module.Class`, or `Class` alone) through `function`.

    It returns HTML, or an object with `html()`, `outputs(text)` and `figure` (see `reports.displays.frame.Display`).
    """
    _DISPLAYS[type_name] = function


def register_provider(module: str) -> None:
    """Import `module`, which registers displays, when the first value is to be shown."""
    if module not in _PROVIDERS:
        _PROVIDERS.append(module)


def display_for(value: Any) -> Any:
    """What is registered for the class of `value` or the nearest base of it, made for `value`; None when nothing is."""
    for module in _PROVIDERS:
        importlib.import_module(module)
    for cls in type(value).__mro__:
        for name in (f"{cls.__module__}.{cls.__qualname__}", cls.__qualname__):
            if name in _DISPLAYS:
                return _DISPLAYS[name](value)
    return None


def html_for(value: Any) -> str | None:
    """The HTML of `value`, its figure inside; None when no display is registered for its class or a base of it."""
    found = display_for(value)
    return found if found is None or isinstance(found, str) else found.html()


def figure_for(value: Any) -> Any:
    """The drawing of `value`, or None when its display has none."""
    return getattr(display_for(value), "figure", None)


class Shown:
    """A value with a short `repr`, and a rich display in a notebook.

    A dataclass that inherits from it says `repr=False`. In a notebook the words and tables are one output (text/html) and the
    figure another (image/svg+xml): places that show a stored notebook drop a drawing inside HTML, but keep one that stands alone.
    """

    def __repr__(self) -> str:
        return brief(self)

    def _repr_html_(self) -> str | None:
        return html_for(self)

    def _ipython_display_(self) -> None:
        from .notebooks import in_notebook

        if not in_notebook():
            raise NotImplementedError  # IPython's own way to say: use the other representations
        from IPython.display import display

        found = None
        with contextlib.suppress(Exception):  # a value that cannot be drawn can still be named
            found = display_for(self)
        for output in _outputs(found, repr(self)):
            display(output, raw=True)


def _outputs(found: Any, text: str) -> list[dict[str, str]]:
    if found is None:
        return [{"text/plain": text}]
    return [{"text/html": found, "text/plain": text}] if isinstance(found, str) else found.outputs(text)


def brief(value: Any) -> str:
    """`Class(field=..., field=...)` on one line: shapes instead of numbers, counts instead of long lists.

    >>> brief(range(1000))
    '1,000 items'
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        listed = [f"{f.name}={_short(getattr(value, f.name, None))}" for f in dataclasses.fields(value) if f.repr]
        return _within(type(value).__name__, listed)
    return f"{type(value).__name__}(…)" if isinstance(value, Shown) and not isinstance(value, Collection) else _short(value)


def _within(name: str, listed: list[str]) -> str:
    kept, length = [], len(name)
    for text in listed:
        length += len(text) + 2
        if length > MAX_REPR:
            kept.append("…")
            break
        kept.append(text)
    return f"{name}({', '.join(kept)})"


def _short(value: Any) -> str:
    if value is None or isinstance(value, (bool, int)):
        return repr(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (str, Path)):
        text = str(value)
        return repr(text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…")
    if (shape := getattr(value, "shape", None)) is not None:
        return f"{type(value).__name__}[{', '.join(map(str, shape))}]"
    if isinstance(value, Collection):
        return _collected(value)
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}(…)"
    text = repr(value)
    return text if len(text) <= MAX_WORDS and "\n" not in text else f"{type(value).__name__}(…)"


def _collected(value: Collection[Any]) -> str:
    """A few plain items in full; the keys of a small mapping; otherwise how many there are."""
    few, plain = len(value) <= MAX_ITEMS, all(isinstance(one, (str, int, float, type(None))) for one in _first(value))
    if not few or not plain or isinstance(value, bytes):
        return f"{len(value):,} {'item' if len(value) == 1 else 'items'}"
    inner = ", ".join(_short(one) for one in value)
    if isinstance(value, Mapping):
        return "{" + inner + "}" if not value else "{" + ", ".join(f"{_short(k)}: …" for k in value) + "}"
    return f"[{inner}]" if isinstance(value, list) else f"({inner})"


def _first(value: Collection[Any]) -> list[Any]:
    return [one for one, _ in zip(value, range(MAX_ITEMS), strict=False)]
