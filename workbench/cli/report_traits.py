"""`workbench report` on several traits: each in its run folder as before, and one page of all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.runs import RunFolder
from workbench.base.store import content_hash, read_json, sha256_file, write_json

from .console import note

if TYPE_CHECKING:
    from .options import JobFlags
    from .stages import JobResult

PAGE = "page"


def checked_names(traits: Sequence[str]) -> list[str]:
    """The traits, all known, each once, not more than a page takes: refused before any work otherwise."""
    from workbench.reports.limits import MAX_TRAITS

    from .stages import check_trait

    names = [check_trait(trait) for trait in traits]
    short = [Path(name).name for name in names]
    twice = next((name for name in short if short.count(name) > 1), None)
    if twice is not None:
        raise WorkbenchError(f"{twice!r} stands twice", "every trait once", "leave one of the two out")
    if len(names) > MAX_TRAITS:
        raise WorkbenchError(f"{len(names)} traits", f"1 to {MAX_TRAITS} on one page", "make several pages")
    return names


def page_folder(names: Sequence[str], out: Path | None) -> Path:
    """Where the page of several traits lies: `out`, or runs/report-<traits>."""
    short = "-".join(re.sub(r"[^A-Za-z0-9._-]", "-", Path(name).name) for name in names)
    return out if out is not None else Path("runs") / f"report-{short[:120]}"


def make_page(results: Sequence[JobResult], flags: JobFlags, place: Path) -> dict[str, Any]:
    """The page of finished jobs in `place`, made again only when one of their reports changed; its report.json."""
    from .stages import REPORT_HTML, REPORT_JSON, is_current

    made_from = [sha256_file(result.folder / REPORT_JSON) for result in results]
    key = content_hash({PAGE: made_from, "n_features": _n_features(flags)})
    with RunFolder.open(place) as run:
        if not is_current(run, PAGE, key):
            note(f"one page of {len(results)} traits ...")
            write_json(place / REPORT_JSON, _made([result.folder for result in results], flags, place / REPORT_HTML))
            run.mark_done(PAGE, key, files=[REPORT_HTML, REPORT_JSON])
        return {**read_json(place / REPORT_JSON), "report": str((place / REPORT_HTML).resolve())}


def _made(folders: Sequence[Path], flags: JobFlags, path: Path) -> dict[str, Any]:
    from workbench.notebook import report

    made: Any = report(*folders, n_features=_n_features(flags))
    return made.save(path.resolve()).to_json()


def _n_features(flags: JobFlags) -> int:
    return flags.job("").n_features


def show_page(value: dict[str, Any]) -> None:
    """Which traits overlap, and where the page lies."""
    from .console import say, signed, table

    def number(count: Any, digits: int = 0) -> str:
        return "-" if count is None else f"{count:,.{digits}f}"

    rows = [
        (" and ".join(pair["traits"]), signed(pair["cosine"], 2), number(pair["background_q95"], 2), number(pair["p"], 3),
         number(pair["n_shared"]), number(pair["n_expected"], 1))
        for pair in value["pairs"]
    ]  # fmt: skip
    columns = ("traits", "cosine", "placebos, 95th percentile", "p", "shared features", "if unrelated")
    table("What the traits share", columns, rows, right=(1, 2, 3, 4, 5))
    say(f"page: {value['report']}")
