"""The page in a real browser. Skipped without chromium; failing instead when WORKBENCH_REQUIRE_BROWSER=1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reports.hostile import HOSTILE, hostile_report

pytestmark = pytest.mark.browser

EVIL = '[id="evil/features"]'
OPEN = "evil/feature-311"


@pytest.fixture(scope="module")
def saved(full, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    full.save(path)
    return path


@pytest.fixture(scope="module")
def several(three, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "three.html"
    three.save(path)
    return path


def is_open(seen, card: str) -> bool:
    return seen.page.evaluate("id => document.getElementById(id).open", card)


def is_in_view(seen, identifier: str) -> bool:
    box = "id => { const b = document.getElementById(id).getBoundingClientRect(); return b.top >= 0 && b.top < innerHeight; }"
    return seen.page.evaluate(box, identifier)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_renders_without_complaint_and_without_the_network(visit, several: Path, scheme: str):
    seen = visit(several, color_scheme=scheme)
    seen.page.eval_on_selector_all(".open-all", "all => all.forEach(button => button.click())")
    seen.page.wait_for_timeout(100)
    assert seen.complaints == [] and seen.requests == []
    assert seen.page.eval_on_selector_all("details.card", "all => all.every(d => d.open)")
    background = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 28)")


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_nothing_is_wider_than_the_window(visit, several: Path, width: int):
    seen = visit(several, viewport={"width": width, "height": 800})
    seen.page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_screen_holds_the_answer_the_picture_the_examples_and_the_light(visit, saved: Path):
    seen = visit(saved, viewport={"width": 1440, "height": 900})
    for part in ("h1", ".answer", ".made .wbf", ".fitness", ".examples li >> nth=-1"):
        box = seen.page.locator(part).first.bounding_box()
        assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 900, part


def test_a_heading_sorts_both_ways_and_unknown_values_stay_last(visit, saved: Path, full):
    seen = visit(saved)
    known = {row["feature"]: row["causal_odd"] for row in full.features}
    head = seen.page.get_by_role("button", name="Causal effect")
    for falling in (True, False):
        head.click()
        order = [known[feature] for feature in seen.shown_features()]
        tested = [value for value in order if value is not None]
        assert tested == sorted(tested, reverse=falling)
        assert order == tested + [None] * (len(order) - len(tested))
    assert seen.page.get_attribute("th:has-text('Causal effect')", "aria-sort") == "ascending"
    assert seen.page.locator("th[aria-sort]").count() == 1
    head = seen.page.get_by_role("button", name="Label", exact=True)
    head.click()
    named = {row["feature"]: row["label"] for row in full.features}
    words = [named[feature] for feature in seen.shown_features()]
    labels = sorted((word for word in words if word), key=str.lower)
    assert words == labels + [None] * (len(words) - len(labels))


def test_the_table_works_from_the_keyboard(visit, saved: Path):
    seen = visit(saved)
    seen.page.get_by_role("button", name="Feature", exact=True).focus()
    seen.page.keyboard.press("Enter")
    assert seen.shown_features() == sorted(seen.shown_features())
    seen.page.keyboard.press("Space")
    assert seen.shown_features() == sorted(seen.shown_features(), reverse=True)
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Label"
    seen.page.focus(f"{EVIL} .columns summary")
    seen.page.keyboard.press("Enter")
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Space")
    assert not seen.page.locator(f"{EVIL} th[data-key=share]").is_visible()
    link = f"{EVIL} .features tbody tr:not([hidden]) a >> nth=0"
    target = (seen.page.get_attribute(link, "href") or "")[1:]
    seen.page.focus(link)
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_function("id => document.getElementById(id).open", arg=target)


def test_filters_work_together_and_are_announced(visit, saved: Path, full):
    seen = visit(saved)
    seen.page.fill(f"{EVIL} [data-by=q]", "SCORN weak")
    assert seen.shown_features() == [311]
    assert seen.page.text_content(f"{EVIL} .count") == f"1 of {len(full.features)} features shown"
    seen.page.fill(f"{EVIL} [data-by=q]", "")
    seen.page.select_option(f"{EVIL} [data-by=category]", "style")
    assert sorted(seen.shown_features()) == [640, 873]
    seen.page.select_option(f"{EVIL} [data-by=change]", "less")
    assert seen.shown_features() == [640]
    seen.page.check(f"{EVIL} [data-by=verified]")
    assert seen.shown_features() == []
    seen.page.select_option(f"{EVIL} [data-by=category]", "")
    seen.page.select_option(f"{EVIL} [data-by=change]", "")
    assert sorted(seen.shown_features()) == sorted(row["feature"] for row in full.features if row["verified"])


def test_what_is_sorted_filtered_and_shown_stands_in_the_address_and_survives_a_reload(visit, saved: Path):
    seen = visit(saved)
    seen.page.get_by_role("button", name="Placebo q").click()
    seen.page.fill(f"{EVIL} [data-by=q]", "and")
    seen.page.click(f"{EVIL} .columns summary")
    seen.page.check(f"{EVIL} [data-column=cosine]")
    order = seen.shown_features()
    assert "sort=placebo_q" in seen.fragment and "q=and" in seen.fragment and "cosine" in seen.fragment
    again = visit(saved, fragment="#" + seen.page.url.split("#")[1])
    assert again.shown_features() == order and again.page.locator(f"{EVIL} th[data-key=cosine]").is_visible()
    again.page.reload()
    assert again.shown_features() == order and is_in_view(again, "evil/features")


def test_an_address_says_the_order_of_equal_values_too(visit, saved: Path):
    seen = visit(saved)
    seen.page.get_by_role("button", name="Label", exact=True).click()
    seen.page.get_by_role("button", name="With evil", exact=True).click()
    order = seen.shown_features()
    seen.page.reload()
    assert seen.shown_features() == order


def test_a_link_opens_a_card_again_that_was_closed(visit, saved: Path):
    seen = visit(saved)
    link = f'{EVIL} .features a[href="#{OPEN}"]'
    seen.page.click(link)
    seen.page.wait_for_function("id => document.getElementById(id).open", arg=OPEN)
    seen.page.click(f'[id="{OPEN}"] summary')
    assert not is_open(seen, OPEN)
    seen.page.click(link)
    assert is_open(seen, OPEN) and is_in_view(seen, OPEN)


def test_an_address_opens_the_right_card_and_the_back_button_goes_back(visit, several: Path):
    seen = visit(several, fragment="#impolite/feature-94")
    assert is_open(seen, "impolite/feature-94") and not is_open(seen, "evil/feature-94")
    assert is_in_view(seen, "impolite/feature-94")
    seen.page.reload()
    assert is_open(seen, "impolite/feature-94") and is_in_view(seen, "impolite/feature-94")
    seen.page.click('.bar a[href="#dull"]')
    assert is_in_view(seen, "dull/title")
    seen.page.wait_for_selector('.bar a[href="#dull"][aria-current]')
    seen.page.go_back()
    seen.page.wait_for_function("location.hash === '#impolite/feature-94'")
    assert is_in_view(seen, "impolite/feature-94")


def test_a_card_that_is_opened_gives_its_address(visit, saved: Path):
    seen = visit(saved)
    seen.page.click(f'[id="{OPEN}"] summary')
    seen.page.wait_for_function("id => location.hash === '#' + id", arg=OPEN)


def test_a_row_of_a_feature_without_a_card_can_be_addressed_even_when_it_is_filtered_away(visit, saved: Path, full):
    bare = next(row["feature"] for row in full.features if not row["label"] and row["causal_odd"] is None)
    seen = visit(saved)
    seen.page.fill(f"{EVIL} [data-by=q]", "scorn")
    seen.page.evaluate("id => { location.hash = '#' + id; }", f"evil/feature-{bare}")
    seen.page.wait_for_function("id => !document.getElementById(id).hidden", arg=f"evil/feature-{bare}")
    assert seen.page.evaluate("document.querySelector(':target').id") == f"evil/feature-{bare}"


def test_a_card_shows_contexts_tokens_pictures_and_what_was_said(visit, saved: Path):
    seen = visit(saved, fragment=f"#{OPEN}")
    card = seen.page.locator(f'[id="{OPEN}"]')
    text = card.inner_text()
    for words in ("How strongly it fires", "By speaker", "By trait", "Does it change what the model prefers to say?",
                  "Makes likelier", "Makes unlikelier", "Nearest directions", "Being rude", "matched control",
                  "Label score"):  # fmt: skip
        assert words in text, words
    assert card.locator("svg").count() >= 4 and card.locator(".ctx mark.peak").count() >= 2


def test_values_of_tokens_show_on_hover_and_for_a_whole_line_on_focus(visit, saved: Path):
    seen = visit(saved, fragment=f"#{OPEN}")
    mark = seen.page.locator(f'[id="{OPEN}"] .ctx mark').first
    content = "m => getComputedStyle(m, '::after').content"
    assert mark.evaluate(content) in ("none", "normal")
    mark.hover()
    assert mark.evaluate(content).strip('"') == mark.get_attribute("data-v")
    seen.page.mouse.move(0, 0)
    line = seen.page.locator(f'[id="{OPEN}"] .ctx').first
    line.focus()
    shown = line.evaluate("l => Array.from(l.querySelectorAll('mark'), m => getComputedStyle(m, '::after').content)")
    assert len(shown) >= 2 and all(value.strip('"').replace(".", "").isdigit() for value in shown)


def test_what_an_earlier_trait_says_of_a_feature_is_copied_when_a_card_opens(visit, several: Path):
    seen = visit(several)
    first, second = (f'[id="{trait}/feature-94"] [data-part=texts]' for trait in ("evil", "impolite"))
    assert seen.page.locator(f"{second} .ctx").count() == 0
    seen.page.click('[id="impolite/feature-94"] summary')
    seen.page.wait_for_function("s => document.querySelector(s + ' .ctx')", arg=second)
    assert seen.page.locator(second).inner_html() == seen.page.locator(first).inner_html()


def test_the_features_of_all_traits_come_in_one_table(visit, several: Path, three):
    seen = visit(several)
    seen.page.click('a[href="#all/features"]')
    seen.page.wait_for_selector('[id="all/features"] tbody tr')
    assert len(seen.shown_features("all/features")) == sum(len(one.features) for one in three)
    seen.page.select_option('[id="all/features"] [data-by=trait]', "dull")
    assert sorted(seen.shown_features("all/features")) == sorted(row["feature"] for row in three["dull"].features)
    identifiers = seen.page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(identifiers) == len(set(identifiers))


def test_data_can_be_taken_out_of_the_page(visit, saved: Path, full):
    from workbench.reports.downloads import tables

    seen = visit(saved)
    with seen.page.expect_download() as json_file:
        seen.page.get_by_role("button", name="JSON").click()
    expected = {**full.to_json(), "report": str(saved)}
    assert json.loads(Path(json_file.value.path()).read_text()) == expected
    assert json_file.value.suggested_filename == "evil.json"
    for name, text in tables(full).items():
        with seen.page.expect_download() as table:
            seen.page.click(f'[data-csv="{name}"]')
        assert Path(table.value.path()).read_bytes() == text.encode() and table.value.suggested_filename == f"evil-{name}"
    assert seen.complaints == [] and seen.requests == []


def test_the_command_can_be_copied(visit, saved: Path):
    seen = visit(saved, permissions=["clipboard-read", "clipboard-write"])
    seen.page.click("[data-copy]")
    seen.page.wait_for_function("document.querySelector('[data-copy]').textContent !== 'Copy'")
    copied = seen.page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == (seen.page.text_content("#command") or "").strip() and copied.startswith("workbench report evil")


def test_it_prints_with_every_picture_and_only_the_chosen_cards(visit, saved: Path, tmp_path: Path):
    seen = visit(saved, fragment=f"#{OPEN}")
    seen.page.pdf(path=tmp_path / "r.pdf", prefer_css_page_size=True)
    assert (tmp_path / "r.pdf").stat().st_size > 50_000
    seen.page.emulate_media(media="print")
    outside = "all => all.filter(f => !f.closest('details')).map(f => f.getBoundingClientRect().width)"
    widths = seen.page.eval_on_selector_all("svg.wbf", outside)
    assert len(widths) >= 5 and all(width > 0 for width in widths)
    assert is_open(seen, OPEN) and not is_open(seen, "evil/feature-94")
    assert not seen.page.locator(".bar").is_visible() and not seen.page.locator(".tools").first.is_visible()


def test_no_picture_or_table_is_cut_on_paper(visit, several: Path):
    a4 = {"width": 688, "height": 972}  # 210 mm less margins, at 96 pixels an inch
    seen = visit(several, viewport=a4)
    seen.page.emulate_media(media="print")
    wide = "all => all.filter(e => e.getClientRects().length && !e.closest('[data-table], #overview')).map(e => e.scrollWidth)"
    assert max(seen.page.eval_on_selector_all(".scroll, figure, table", wide)) <= 688
    seen.page.set_viewport_size({"width": 1024, "height": 688})
    wide = "all => all.filter(e => e.getClientRects().length).map(e => e.scrollWidth)"
    assert max(seen.page.eval_on_selector_all("[data-table] table, #overview table", wide)) <= 1024


def test_the_page_can_be_read_without_scripts(visit, several: Path):
    seen = visit(several, java_script_enabled=False)
    assert seen.page.locator(f"{EVIL} .features tbody tr").count() > 20
    assert not seen.page.locator(f"{EVIL} .tools").is_visible() and seen.page.locator(f"{EVIL} th[data-key=cosine]").is_visible()
    assert seen.page.locator('[id="impolite/feature-94"] [data-part=texts] a').count() == 1


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_an_accessibility_checker_finds_nothing_serious_with_everything_open(visit, several: Path, scheme: str, width: int):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    seen = visit(several, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    seen.page.eval_on_selector_all("article:not(:first-of-type)", "all => all.forEach(a => a.remove())")  # they repeat the first
    seen.page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
    found = axe.Axe().run(seen.page).response["violations"]
    grave = [(one["id"], one["nodes"][0]["html"][:120]) for one in found if one["impact"] in ("serious", "critical")]
    assert grave == []


def test_forced_colours_and_reduced_motion_leave_everything_in_place(visit, saved: Path):
    seen = visit(saved, forced_colors="active", reduced_motion="reduce", fragment=f"#{OPEN}")
    assert seen.complaints == []
    assert seen.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    marked = seen.page.locator(".ctx mark.peak").first
    assert marked.evaluate("m => getComputedStyle(m).textDecorationLine") == "underline"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_does_nothing_in_a_browser(visit, tmp_path: Path, name: str):
    path = tmp_path / "hostile.html"
    hostile_report(HOSTILE[name]).save(path)
    seen = visit(path, viewport={"width": 800, "height": 800})
    seen.page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
    seen.page.fill(f"{EVIL} [data-by=q]", "a")
    seen.page.hover("details.card .ctx mark >> nth=0")
    seen.page.evaluate("location.hash = '#<script>alert(9)</script>'")
    seen.page.wait_for_timeout(50)
    assert seen.dialogs == [] and seen.complaints == [] and seen.requests == []
    assert seen.page.evaluate("document.querySelectorAll('script, img, iframe, object, embed').length") == 3
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 800
    assert seen.page.evaluate("document.querySelectorAll('main > article').length") == 1
