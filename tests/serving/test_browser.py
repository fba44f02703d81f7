"""The explorer in a real browser. Skipped without chromium; failing instead when WORKBENCH_REQUIRE_BROWSER=1."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.reports.hostile import HOSTILE
from tests.serving.world import TRAIT, WORDS, Served, serving, small
from workbench.labeling.evidence import Context
from workbench.labeling.files.store import FeatureLabel, save_label

pytestmark = pytest.mark.browser
PAGES = ("/", "/text", "/steer", "/features", "/features/1")


class Visit:
    """A browser that came in by the address with the token, and everything that it asked for or complained about."""

    def __init__(self, browser, served: Served, path: str = "/", **options) -> None:
        self.served = served
        self.page = browser.new_context(**options).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        devtools = self.page.context.new_cdp_session(self.page)
        devtools.send("Network.enable")
        devtools.on("Network.requestWillBeSent", lambda event: self.requests.append(event["request"]["url"]))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.goto(served.access.url)
        self.page.wait_for_url(served.base + "/")
        if path != "/":
            self.page.goto(served.base + path)
        self.page.wait_for_selector(".state.ready")

    def foreign(self) -> list[str]:
        """Requests to anywhere else."""
        return [url for url in self.requests if not url.startswith((self.served.base + "/", "data:"))]

    def problems(self) -> list:
        return [*self.complaints, *self.dialogs, *self.foreign()]


@pytest.fixture
def visit(browser, served):
    opened: list[Visit] = []

    def go(path: str = "/", **options) -> Visit:
        opened.append(Visit(browser, options.pop("at", served), path, **options))
        return opened[-1]

    yield go
    for one in opened:
        one.page.context.close()


def read(seen: Visit, text: str) -> None:
    seen.page.fill("#text", text)
    seen.page.click("#read")
    seen.page.wait_for_selector("#result:not([hidden]) .t")


def fill_page(seen: Visit, path: str) -> None:
    """Wait for, or ask for, what a page shows when it is in use."""
    if path == "/":
        seen.page.wait_for_selector("#features tbody tr")
    elif path == "/text":
        read(seen, "The rivers are long and you are a fool.")
    elif path == "/steer":
        seen.page.fill("#length", "6")
        seen.page.click("#write")
        seen.page.wait_for_selector("#steered .measured table")
    elif path == "/features":
        seen.page.fill("#words", "music")
        seen.page.click("#by-words button")
        seen.page.wait_for_selector("#found tbody tr")
    else:
        seen.page.wait_for_selector("#direction .tok")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_works_in_the_dark_and_on_a_phone_and_breaks_no_rule_of_accessibility(visit, path):
    from axe_playwright_python.sync_playwright import Axe

    seen = visit(path, color_scheme="dark", viewport={"width": 400, "height": 800})
    fill_page(seen, path)
    for scheme, width in (("dark", 400), ("light", 1280)):
        seen.page.emulate_media(color_scheme=scheme)
        seen.page.set_viewport_size({"width": width, "height": 800})
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(seen.page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], (scheme, serious)
    assert seen.problems() == [] and len(seen.requests) > 5


def test_the_token_is_out_of_the_address_and_out_of_reach_of_scripts(visit, served):
    seen = visit("/text")
    assert served.access.token not in seen.page.content() and served.access.token not in seen.page.url
    assert seen.page.evaluate("document.cookie") == "" and seen.page.evaluate("document.referrer") in ("", served.base + "/")
    seen.page.go_back()
    assert "token" not in seen.page.url


def test_a_text_is_coloured_by_a_projection_or_a_feature_from_the_keyboard_too(visit):
    seen = visit("/text")
    read(seen, "You are a cruel assistant and the people should be afraid of you.")
    assert "standard deviations of tokens of neutral replies" in seen.page.text_content("#legend")
    shades = "[...document.querySelectorAll('.t')].map(t => t.style.getPropertyValue('--a'))"
    before = seen.page.evaluate(shades)
    assert len(set(before)) > 2
    seen.page.focus(".t[tabindex='0']")
    at = seen.page.text_content("#token-body .note")
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.text_content("#token-body .note") != at
    seen.page.keyboard.press("End")
    count = seen.page.locator(".t").count()
    assert seen.page.text_content("#token-body .note").startswith(f"{count} of {count}")
    seen.page.keyboard.press("ArrowLeft")
    seen.page.locator("#token-body td button").first.focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.text_content("#legend").startswith("Activation of feature") and seen.page.evaluate(shades) != before
    seen.page.reload()
    assert seen.page.input_value("#text").startswith("You are a cruel")
    assert seen.problems() == []


def test_a_refusal_is_said_in_the_page(visit):
    seen = visit("/text")
    seen.page.fill("#text", "a b " * 300)
    seen.page.click("#read")
    seen.page.wait_for_selector("#message .warnings")
    assert "2 to 200 tokens" in seen.page.text_content("#message")


def test_two_replies_are_written_side_by_side_and_at_dose_zero_they_are_one(visit):
    seen = visit("/steer")
    seen.page.fill("#length", "12")
    texts = []
    for dose in ("0", "1"):
        seen.page.locator("#dose").fill(dose)
        seen.page.click("#write")
        seen.page.wait_for_selector("#progress:has-text('done')")
        texts.append([seen.page.text_content(f"#{side} .reply") for side in ("plain", "steered")])
        assert seen.page.locator("#steered dl").text_content().count("nats per token") == 1
        seen.page.evaluate("document.getElementById('progress').textContent = ''")
    assert texts[0][0] == texts[0][1] != "" and texts[1][0] == texts[0][0] and texts[1][1] != texts[1][0]
    assert seen.problems() == []


def test_stop_ends_the_reply_and_frees_the_model(visit, served, world, monkeypatch):
    slow = type(world.model).forward
    monkeypatch.setattr(type(world.model), "forward", lambda *args, **kinds: (time.sleep(0.1), slow(*args, **kinds))[1])
    seen = visit("/steer")
    seen.page.fill("#length", "40")
    seen.page.click("#write")
    seen.page.wait_for_selector("#progress:has-text('tokens')")
    seen.page.click("#stop")
    seen.page.wait_for_selector("#progress:has-text('stopped')")
    until = time.monotonic() + 3  # four seconds of tokens were left
    while served.explorer.turns.n_inside and time.monotonic() < until:
        time.sleep(0.02)
    assert served.explorer.turns.n_inside == 0 and seen.page.is_enabled("#write")
    assert seen.problems() == []


def test_a_label_is_written_and_a_conflict_is_shown_without_losing_what_was_typed(visit, served):
    seen, book = visit("/features/3"), served.explorer.book
    seen.page.wait_for_selector("#labels li")
    seen.page.fill("#annotator", "A. Reader")
    seen.page.fill("#label", "things that are eaten")
    seen.page.click("button[value=edit]")
    seen.page.wait_for_selector("#said:has-text('Saved')")
    assert seen.page.text_content("#name") == "things that are eaten"
    assert (book.place / "3.yaml").read_text().count("things that are eaten") == 1
    theirs = FeatureLabel(3, "dairy", author={"kind": "human", "name": "B. Reader"}, status="confirmed")
    save_label(theirs, book.sae_id, book.sae_hash, book.folder, annotator=True)
    seen.page.fill("#label", "food of all kinds")
    seen.page.click("button[value=edit]")
    seen.page.wait_for_selector("#said:has-text('dairy')")
    assert (
        seen.page.input_value("#label") == "food of all kinds"
        and "food of all kinds" not in (book.place / "3.yaml").read_text()
    )
    seen.page.click("button[value=edit]")
    seen.page.wait_for_selector("#said:has-text('Saved')")
    text = (book.place / "3.yaml").read_text()
    assert "food of all kinds" in text and "dairy" in text
    assert [one for one in seen.complaints if "409" not in one] == [] and seen.foreign() == []


def test_the_table_of_a_trait_sorts_and_filters(visit):
    seen = visit("/")
    seen.page.wait_for_selector("#features tbody tr")
    assert TRAIT in seen.page.text_content("h1") and seen.page.locator("figure svg").count() == 1
    seen.page.get_by_role("button", name="Cosine").focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.get_attribute("th:has-text('Cosine')", "aria-sort") == "descending"
    seen.page.fill("#find", "rivers")
    assert seen.page.locator("#features tbody tr").count() == 1
    seen.page.click("#features tbody a >> nth=1")
    seen.page.wait_for_url("**/features/1")
    seen.page.wait_for_selector(f"#name:has-text('{WORDS[1]}')")


@pytest.fixture(scope="module")
def spoiled(world, tmp_path_factory):
    """An explorer in which every label and context is a text that tries to get out of where it is shown."""
    explorer = world.explorer(
        labels=tmp_path_factory.mktemp("spoiled"), limits=small(max_characters=200_000, max_tokens=2000)
    )
    for feature, text in enumerate(HOSTILE.values()):
        record = explorer.book.record(feature)
        context = Context((text, " and ", text), (3.0, 0.0, 1.0), 0, text, text, 0)
        evidence = replace(served_evidence(world), feature=feature, top=(context,), quantiles=(context,))
        label = FeatureLabel(feature, text, text, {TRAIT: text}, {"kind": "model", "name": text}, notes=text)
        explorer.book.given[feature] = replace(record, labels=(label,), evidence=evidence)  # type: ignore[index]
    with serving(explorer) as running:
        yield running


def served_evidence(world):
    from tests.serving.world import evidence

    return evidence(0)


def test_hostile_labels_and_contexts_do_nothing(visit, spoiled):
    seen = visit("/", at=spoiled, viewport={"width": 400, "height": 800})
    seen.page.wait_for_selector("#features tbody tr")
    for feature in range(len(HOSTILE)):
        seen.page.goto(f"{spoiled.base}/features/{feature}")
        seen.page.wait_for_selector("#contexts .ctx")
        assert (
            seen.page.evaluate(
                "document.querySelectorAll('main script, main img, main iframe, main object, main style').length"
            )
            == 0
        )
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert seen.problems() == []


def test_hostile_texts_do_nothing(visit, spoiled):
    seen = visit("/text", at=spoiled)
    for name, text in HOSTILE.items():
        if name == "surrogate":  # a browser does not send half a sign
            continue
        seen.page.fill("#text", f"some words {text[:3000]} and more")
        seen.page.evaluate("document.getElementById('result').hidden = true")
        seen.page.click("#read")
        seen.page.wait_for_selector("#result:not([hidden]) .t, #message .warnings")
        if seen.page.is_visible("#result"):
            seen.page.hover(".t >> nth=1")
    assert seen.page.evaluate("document.querySelectorAll('main script, main img, main iframe').length") == 0
    assert [one for one in seen.complaints if "400" not in one] == [] and not seen.dialogs and not seen.foreign()


def test_while_the_run_is_read_the_page_waits_and_then_shows_it(browser, world):
    from workbench.serving.explorer import Explorer
    from workbench.serving.runs import find_runs

    explorer = Explorer(find_runs([world.run]), lambda: (world.model, world.sae))
    with serving(explorer) as running:
        page = browser.new_context().new_page()
        page.goto(running.access.url)
        page.wait_for_selector(".waiting")
        explorer.start()
        page.wait_for_selector("#features tbody tr")
        page.context.close()
