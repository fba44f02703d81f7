"""The page in a real browser. Skipped without chromium; failing instead when WORKBENCH_REQUIRE_BROWSER=1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reports.hostile import HOSTILE, hostile_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def saved(report, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.save(path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_renders_without_complaint_and_without_the_network(visit, saved: Path, scheme: str):
    seen = visit(saved, color_scheme=scheme)
    seen.page.click("#open-all")
    seen.page.wait_for_timeout(100)
    assert seen.complaints == [] and seen.requests == []
    assert seen.page.eval_on_selector_all("details.card", "all => all.every(d => d.open)")
    background = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 28)")


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_nothing_is_wider_than_the_window(visit, saved: Path, width: int):
    seen = visit(saved, viewport={"width": width, "height": 800})
    seen.page.click("#open-all")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_heading_sorts_both_ways_and_unknown_values_stay_last(visit, saved: Path, report):
    seen = visit(saved)
    known = {row["feature"]: row["causal_odd"] for row in report.features}
    head = seen.page.get_by_role("button", name="Causal effect")
    for falling in (True, False):
        head.click()
        order = [known[feature] for feature in seen.shown_features()]
        tested = [value for value in order if value is not None]
        assert tested == sorted(tested, reverse=falling)
        assert order == tested + [None] * (len(order) - len(tested))
    assert seen.page.get_attribute("th:has-text('Causal effect')", "aria-sort") == "ascending"
    assert seen.page.locator("th[aria-sort]").count() == 1


def test_sorting_works_from_the_keyboard(visit, saved: Path):
    seen = visit(saved)
    seen.page.get_by_role("button", name="Feature", exact=True).focus()
    seen.page.keyboard.press("Enter")
    assert seen.shown_features() == sorted(seen.shown_features())
    seen.page.keyboard.press("Space")
    assert seen.shown_features() == sorted(seen.shown_features(), reverse=True)
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Label"


def test_text_category_and_verified_filters_work_together_and_are_announced(visit, saved: Path, report):
    seen = visit(saved)
    seen.page.fill("#search", "SCORN weak")
    assert seen.shown_features() == [311]
    assert seen.page.text_content("#count") == f"1 of {len(report.features)} features shown"
    seen.page.fill("#search", "")
    seen.page.select_option("#category", "style")
    assert sorted(seen.shown_features()) == [640, 873]
    seen.page.check("#only")
    assert seen.shown_features() == []
    seen.page.select_option("#category", "")
    assert sorted(seen.shown_features()) == sorted(
        row["feature"] for row in report.features if row["verified"]
    )


def test_an_address_leads_to_a_row_or_opens_a_card(visit, saved: Path):
    row = visit(saved, fragment="#feature-77")
    assert row.page.evaluate("document.querySelector(':target').id") == "feature-77"
    card = visit(saved, fragment="#card-94")
    assert card.page.evaluate("document.getElementById('card-94').open")
    card.page.click("#feature-311 a")
    card.page.wait_for_function("document.getElementById('card-311').open")  # hashchange comes after the click


def test_data_can_be_taken_out_of_the_page(visit, saved: Path, report):
    seen = visit(saved)
    with seen.page.expect_download() as json_file:
        seen.page.click("#get-json")
    expected = {**report.to_json(), "report": str(saved)}
    assert json.loads(Path(json_file.value.path()).read_text()) == expected
    assert json_file.value.suggested_filename == "evil.json"
    with seen.page.expect_download() as table:
        seen.page.click("#get-csv")
    lines = Path(table.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith('"feature","label","category"') and len(lines) == 1 + len(report.features)
    assert seen.complaints == [] and seen.requests == []


def test_it_prints_with_every_card_open(visit, saved: Path, tmp_path: Path):
    seen = visit(saved)
    seen.page.pdf(path=tmp_path / "r.pdf", prefer_css_page_size=True)
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF") and (
        tmp_path / "r.pdf"
    ).stat().st_size > 50_000
    assert not seen.page.evaluate("document.getElementById('card-311').open")  # closed again afterwards
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert seen.page.eval_on_selector_all("details", "all => all.every(d => d.open)")


def test_the_table_can_be_read_without_scripts(visit, saved: Path):
    seen = visit(saved, java_script_enabled=False)
    assert seen.page.locator("#features tbody tr").count() > 20
    assert not seen.page.locator("#search").is_visible()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_does_nothing_in_a_browser(visit, tmp_path: Path, name: str):
    path = tmp_path / "hostile.html"
    hostile_report(HOSTILE[name]).save(path)
    seen = visit(path)
    seen.page.click("#open-all")
    seen.page.fill("#search", "a")
    seen.page.hover(".ctx span >> nth=0")
    seen.page.wait_for_timeout(50)
    assert seen.dialogs == [] and seen.complaints == [] and seen.requests == []
    assert seen.page.evaluate("document.querySelectorAll('script, img, iframe, object, embed').length") == 2
    assert seen.page.evaluate("document.querySelectorAll('section').length") == 7


def test_a_spreadsheet_would_not_run_a_label(visit, tmp_path: Path):
    path = tmp_path / "formula.html"
    hostile_report(HOSTILE["formula"]).save(path)
    seen = visit(path)
    with seen.page.expect_download() as table:
        seen.page.click("#get-csv")
    assert "\"'=HYPERLINK(" in Path(table.value.path()).read_text(encoding="utf-8")
