"""A registry of rich displays, so that value types show themselves in notebooks without importing any drawing.

Value types call `html_for(self)` in `_repr_html_`. The package names the module that registers the functions; it is
imported when the first value is shown, so that `import workbench` stays light.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

_PROVIDERS: list[str] = []
_DISPLAYS: dict[str, Callable[[Any], str]] = {}
_FIGURES: dict[str, Callable[[Any], Any]] = {}


def register(type_name: str, function: Callable[[Any], str]) -> None:
    """Show values of the class with this qualified name (`module.Class`, or `Class` alone) through `function`."""
    _DISPLAYS[type_name] = function


def register_figure(type_name: str, function: Callable[[Any], Any]) -> None:
    """Draw values of the class with this name through `function`."""
    _FIGURES[type_name] = function


def register_provider(module: str) -> None:
    """Import `module`, which registers displays, when the first value is to be shown."""
    if module not in _PROVIDERS:
        _PROVIDERS.append(module)


def html_for(value: Any) -> str | None:
    """The HTML of `value`, or None when no display is registered for its class or a base of it."""
    return _shown(value, _DISPLAYS)


def figure_for(value: Any) -> Any:
    """The drawing of `value`, or None when no figure is registered for its class or a base of it."""
    return _shown(value, _FIGURES)


def _shown(value: Any, functions: dict[str, Callable[[Any], Any]]) -> Any:
    for module in _PROVIDERS:
        importlib.import_module(module)
    for cls in type(value).__mro__:
        for name in (f"{cls.__module__}.{cls.__qualname__}", cls.__qualname__):
            if name in functions:
                return functions[name](value)
    return None
