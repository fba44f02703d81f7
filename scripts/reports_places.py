"""The places in the docs that docs/evidence/reports.json fills: see fill_docs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "reports.json"


def _reports() -> dict[str, Any]:
    return read_json(EVIDENCE)


def report_line() -> str:
    """Size, speed and faults of the page of seven traits."""
    found = _reports()
    delays = ", ".join(f"{name.replace('_', ' a ')} {value:.0f} ms" for name, value in found["interaction_ms"].items())
    return (
        f"The page of seven traits has {found['report_bytes'] / 1e6:.2f} MB and shows something after "
        f"{found['first_paint_ms']:.0f} ms in headless Chromium ({delays}). In light on a wide "
        "and dark on a narrow window, closed and open: "
        f"{_faults(found['looked_at']['report'])}. Of {found['hostile_cases']} hostile texts in every text of a report "
        f"{found['hostile_executed']} did anything."
    )


def explorer_line() -> str:
    """Faults of the explorer's pages."""
    seen = _reports()["looked_at"]["explorer"]
    return f"Six of its pages on a real run, in light on a wide and in dark on a narrow window: {_faults(seen)}."


def _faults(seen: dict[str, Any]) -> str:
    return (
        f"{seen['console_errors']} console errors, {seen['network_requests']} requests to another address, {seen['axe_serious']} "
        "serious or critical findings of axe-core"
    )


def notebooks_line() -> str:
    """How long the notebooks take."""
    seconds = _reports()["notebooks"]
    return f"Seconds, from what a first run left: {', '.join(f'{name[:2]} {value:.0f}' for name, value in seconds.items())}."


def fresh_reader_line() -> str:
    """How the walk through the quick start went."""
    done = [one for one in _reports()["fresh_reader_commands"] if one["ok"] is not None]
    return f"{sum(one['ok'] for one in done)} of {len(done)} commands went well."


PLACES = (report_line, explorer_line, notebooks_line, fresh_reader_line)
