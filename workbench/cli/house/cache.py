"""`workbench cache`: what downloads and conversions take, and how to get rid of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import JsonOption, QuietOption

if TYPE_CHECKING:
    from .cache_items import CacheItem

app = typer.Typer()
_UNITS = {"h": 1 / 24, "d": 1, "w": 7, "m": 30, "y": 365}


@app.command("list")
def list_(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """What lies in the cache: size, last use, how it comes back.

    The last use is that of the file system, which may note readings once a day only.
    """
    from workbench.base.settings import cache_dir

    from ..console import emit
    from .cache_items import items

    rows = [item.row() for item in items()]
    value = {"folder": str(cache_dir()), "items": rows, "bytes": sum(row["bytes"] for row in rows)}
    emit(value, as_json=as_json, show=lambda: _show_list(value))


def _show_list(value: dict[str, Any]) -> None:
    from workbench.base.sizes import size_text

    from ..console import say, table

    rows = [(r["name"], r["what"], size_text(r["bytes"]), f"{r['days_since_use']:.0f} d", r["again"]) for r in value["items"]]
    if rows:
        table("", ("name", "what", "size", "unused", "how it comes back"), rows, right=(2, 3))
    say(f"{value['folder']}: {size_text(value['bytes'])}")


@app.command()
def clean(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Items, or all of a kind (models). [default: what is half-written]"),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="What was not used for so long: 12h, 30d, 8w, 6m.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. [default: only say what would go]")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove items by name or by age; --yes deletes them.

    Without names only what a stopped process left. Answers that were paid for, and SAEs and labels of yours, go by name alone.
    What another process writes is left alone.
    """
    from ..console import emit
    from .cache_items import holder_of, remove

    days = None if older_than is None else _days(older_than)
    chosen = [item for item in _chosen(names or [], days) if days is None or item.row()["days_since_use"] >= days]
    busy = {item.name: why for item in chosen if (why := holder_of(item))}
    free = [item for item in chosen if item.name not in busy]
    rows = [item.row() for item in free]
    if yes:
        for item in free:
            remove(item)
    value = {"items": rows, "bytes": sum(row["bytes"] for row in rows), "deleted": yes, "in_use": busy}
    emit(value, as_json=as_json, show=lambda: _show_clean(value))


def _chosen(names: list[str], days: float | None) -> list[CacheItem]:
    from workbench.base.errors import unknown_name

    from .cache_items import items

    found = items()
    if not names:
        return [item for item in found if not item.precious and (item.partial or days is not None)]
    kinds = {item.name.split("/")[0] for item in found}
    for name in names:
        if name not in {item.name for item in found} | kinds:
            raise unknown_name("item in the cache", name, [*(item.name for item in found), *kinds])
    # What nobody here knows, inside a folder of ours, goes by its full name alone.
    return [item for item in found if item.name in names
            or (item.name.split("/")[0] in names and not (item.precious and "/" in item.name))]  # fmt: skip


def _days(text: str) -> float:
    from workbench.base.errors import WorkbenchError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdwmy])", text.strip().lower())
    if not found:
        raise WorkbenchError(f"the age {text!r}", "a number with h, d, w, m or y", "write it like 30d or 6m")
    return float(found[1]) * _UNITS[found[2]]


def _show_clean(value: dict[str, Any]) -> None:
    from .freed import show_freed

    rows = [(row["name"], row["what"], row["bytes"], row["again"]) for row in value["items"]]
    show_freed(("name", "what"), rows, value)
