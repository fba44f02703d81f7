"""A made-up report with everything in it, three traits of it, and their pages in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.example import example_report


@pytest.fixture(scope="session")
def report():
    return example_report()


@pytest.fixture(scope="session")
def full():
    from tests.reports.studied import full_report

    return full_report()


@pytest.fixture(scope="session")
def three(full):
    """Three traits on one SAE; the first has views, an audit, checks and causal tests."""
    from tests.reports.studied import other_trait
    from workbench.reports.content import report
    from workbench.reports.several import trait_reports

    return trait_reports([full, report(*other_trait("impolite"), views=full.views), report(*other_trait("dull"))])


class Visit:
    """A page opened from a file, with everything that went wrong and everything that it asked the network for."""

    def __init__(self, browser, path: Path, *, fragment: str = "", **context) -> None:
        self.page = browser.new_context(accept_downloads=True, **context).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.goto(path.as_uri() + fragment)

    def _dialog(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _request(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.requests.append(request.url)

    def shown_features(self, table: str = "evil/features") -> list[int]:
        """The features of the table's visible rows, from the top."""
        cells = self.page.eval_on_selector_all(
            f'[id="{table}"] .features tbody tr:not([hidden]) td:first-child', "cells => cells.map(c => Number(c.dataset.sort))"
        )
        return [int(cell) for cell in cells]

    @property
    def fragment(self) -> str:
        return self.page.evaluate("decodeURIComponent(location.hash)")


@pytest.fixture
def visit(browser):
    opened: list[Visit] = []

    def open_page(path: Path, **options) -> Visit:
        opened.append(Visit(browser, path, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.page.context.close()
