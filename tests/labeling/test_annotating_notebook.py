"""The annotator in a notebook: the widget by its messages, and its screen in a real browser."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.annotating import (
    HOSTILE,
    SAE,
    evidence_of,
    label_of,
    label_set,
    session,
    shelf,
)
from workbench.base.errors import WorkbenchError
from workbench.labeling.annotating import notebook
from workbench.labeling.annotating.desk import readings
from workbench.labeling.annotating.journal import read_journal
from workbench.labeling.annotating.queue import Item
from workbench.labeling.files.store import load_labels

pytest.importorskip("anywidget")
from workbench.labeling.annotating.widget import AnnotationWidget

MODULE = Path(notebook.__file__).with_name("annotate.js")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    for widget in list(AnnotationWidget._holders.values()):
        widget.close()


def widget(root: Path, items: Any = None, **options: Any) -> AnnotationWidget:
    return AnnotationWidget(session(root, items, **options))


def one(id: int, action: str, value: str | None = None, feature: int | None = 5, screen: str = "a") -> dict[str, Any]:
    return {"screen": screen, "id": id, "action": action, "value": value, "feature": feature}


# ------------------------------------------------------------------------------------------------ messages


def test_actions_that_were_merged_on_the_way_are_all_done_once_and_in_order(tmp_path: Path) -> None:
    shown = widget(tmp_path)
    shown.outbox = [one(2, "edit", "scorn"), one(1, "category", "contempt")]
    assert shown.state["acknowledged"] == {"a": 2} and shown.state["feature"] == 17 and shown.state["n_read"] == 1
    shown.outbox = [one(1, "category", "contempt"), one(2, "edit", "scorn"), one(3, "confirm", feature=17)]
    assert shown.state["acknowledged"] == {"a": 3} and shown.state["n_read"] == 2
    assert [e["event"] for e in read_journal(shown.session.journal.path)].count("verdict") == 2


def test_two_screens_of_one_widget_count_their_own_actions(tmp_path: Path) -> None:
    shown = widget(tmp_path)
    shown.outbox = [one(1, "confirm")]
    shown.outbox = [one(1, "note", "from the other tab", feature=17, screen="b")]
    assert shown.session.desk.reading(17).note == "from the other tab"
    assert shown.state["acknowledged"] == {"a": 1, "b": 1} and shown.state["message"] == ""


def test_a_state_travels_only_after_its_action_is_on_the_disk(tmp_path: Path) -> None:
    shown = widget(tmp_path)
    lengths: list[tuple[dict[str, int], int]] = []
    path = shown.session.journal.path
    shown.observe(lambda change: lengths.append((change["new"]["acknowledged"], len(read_journal(path)))), "state")
    before = len(read_journal(path))
    shown.outbox = [one(1, "draft_label", "s")]
    assert lengths == [({"a": 1}, before + 1)] and shown.state["saved_at"] == read_journal(path)[-1]["at"]


@pytest.mark.parametrize(
    "bad",
    [
        "confirm", {}, one(1, "confirm") | {"more": 1}, one(True, "confirm"), {**one(1, "confirm"), "value": 3},
        {**one(1, "confirm"), "feature": "5"}, {**one(1, "confirm"), "screen": ["a"]}, {**one(1, "confirm"), "action": None},
    ],
)  # fmt: skip
def test_a_message_of_another_form_is_passed_over(tmp_path: Path, bad: Any) -> None:
    shown = widget(tmp_path)
    before = shown.session.journal.path.read_bytes()
    shown.outbox = [bad]
    assert shown.session.journal.path.read_bytes() == before and shown.state["n_read"] == 0


def test_what_is_refused_is_said_and_acknowledged(tmp_path: Path) -> None:
    shown = widget(tmp_path)
    shown.outbox = [one(1, "__init__"), one(2, "edit", "word " * 13)]
    assert "13 words" in shown.state["message"] and shown.state["acknowledged"] == {"a": 2} and shown.state["n_read"] == 0


def test_a_hidden_label_never_leaves_the_kernel(tmp_path: Path) -> None:
    shown = widget(tmp_path, blind=True)
    assert "insults number" not in repr(shown.get_state())
    shown.outbox = [one(1, "write", "rude words")]
    assert shown.state["proposed"]["label"] == "insults number 5"


def test_a_cell_that_is_run_again_takes_over_from_the_first(tmp_path: Path) -> None:
    shelf(tmp_path)
    labels = load_labels(SAE, tmp_path)
    options: dict[str, Any] = {"name": "first reader", "trait": "evil", "folder": tmp_path}
    first = notebook.annotate(labels, **options)
    first.outbox = [one(1, "confirm", feature=3)]
    second = notebook.annotate(labels, **options)
    assert second.state["n_read"] == 1 and second.state["feature"] == 5
    first.outbox = [one(2, "confirm", feature=5)]
    assert "closed" in first.state["message"] and first.state["allowed"] == []
    assert readings(tmp_path / SAE, "first reader").keys() == {3}
    second.close()
    session(tmp_path).close()  # free again


def test_without_a_name_or_without_anywidget_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkbenchError, match="WORKBENCH_ANNOTATOR"):
        notebook.annotate(label_set(), folder=tmp_path)
    import sys

    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "workbench.labeling.annotating.widget")
    with pytest.raises(WorkbenchError, match=r"persona-workbench\[notebook\]"):
        notebook.annotate(label_set(), name="first reader", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_screen_needs_no_network_and_sets_texts_only_as_text() -> None:
    text = MODULE.read_text(encoding="utf-8")
    assert not [word for word in ("http", "import ", "innerHTML", "insertAdjacent", "eval(", "document.write") if word in text]
    assert len(text.encode()) < 16_000


# ------------------------------------------------------------------------------------------------ in a browser

MOUNT = """
async ([source, state]) => {
  const module = await import("data:text/javascript;base64," + source);
  const values = { state, outbox: [] }, listeners = {};
  window.model = {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; },
    on: (event, call) => { (listeners[event] ??= []).push(call); },
    off: (event, call) => { listeners[event] = (listeners[event] ?? []).filter((one) => one !== call); },
    save_changes: async () => {
      const answer = await window.toPython(values.outbox);
      if (answer) { values.state = answer; (listeners["change:state"] ?? []).forEach((call) => call()); }
    },
  };
  window.listeners = listeners;
  window.leave = module.default.render({ model: window.model, el: document.body });
}
"""


class Screen:
    """The module of the front end in a page, its model joined to the widget in this process."""

    def __init__(self, browser: Any, shown: AnnotationWidget, **context: Any) -> None:
        self.page = browser.new_context(**context).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.kernel_is_there = True
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda r: None if r.url.startswith("data:") else self.requests.append(r.url))
        self.shown = shown
        self.page.expose_function("toPython", self._received)
        self.page.evaluate(MOUNT, [base64.b64encode(MODULE.read_bytes()).decode(), shown.state])
        self.page.focus("section.wa")

    def _received(self, outbox: list[Any]) -> Any:
        if not self.kernel_is_there:
            return None
        self.shown.outbox = outbox
        return self.shown.state

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_function("!document.querySelector('.saved').textContent.includes('not saved')")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()


@pytest.fixture
def screen(browser) -> Iterator[Any]:
    opened: list[Screen] = []

    def open_screen(shown: AnnotationWidget, **context: Any) -> Screen:
        opened.append(Screen(browser, shown, **context))
        return opened[-1]

    yield open_screen
    for one in opened:
        one.page.context.close()


@pytest.mark.browser
def test_a_session_by_keyboard_alone(tmp_path: Path, screen) -> None:
    shelf(tmp_path)
    seen = screen(widget(tmp_path))
    assert "Feature 5 · 1 of 3 · 0 of 3 read" in seen.text("h3") and seen.text("mark") == "idiot".rjust(6)
    seen.press("c")
    assert "Feature 17" in seen.text("h3") and "saved at" in seen.text(".saved") and "Feature 17" in seen.text("[role=status]")
    seen.press("e")
    assert seen.page.input_value("form input") == "insults number 17"
    seen.page.keyboard.type("scorn cuber")  # letters in the field are letters
    seen.press("Enter")
    assert "Feature 3" in seen.text("h3")
    seen.press("b")
    assert "Your verdict: edit (scorn cuber)" in seen.text(".proposed")
    seen.press("n")
    seen.press("?")
    assert seen.page.locator(".help").is_visible()
    seen.press("m")
    seen.page.keyboard.type("a note")
    seen.press("Enter", "u")
    assert "All read · 3 of 3 read" in seen.text("h3")
    read = readings(tmp_path / SAE, "first reader")
    assert [read[f].verdict for f in (5, 17, 3)] == ["confirm", "edit", "unclear"] and read[3].note == "a note"
    assert seen.complaints == [] and seen.requests == []


@pytest.mark.browser
def test_every_letter_is_a_draft_on_the_disk_and_survives(tmp_path: Path, screen) -> None:
    shown = widget(tmp_path)
    seen = screen(shown)
    seen.press("e")
    seen.page.keyboard.type("sco")
    seen.settle()
    drafts = [e["text"] for e in read_journal(shown.session.journal.path) if e["event"] == "draft"]
    assert drafts == ["s", "sc", "sco"]
    seen.press("Escape", "e")
    assert seen.page.input_value("form input") == "sco"
    shown.close()
    again = screen(widget(tmp_path))
    again.press("e")
    assert again.page.input_value("form input") == "sco"


@pytest.mark.browser
def test_keys_faster_than_the_kernel_are_all_kept_and_a_second_press_does_no_harm(tmp_path: Path, screen) -> None:
    seen = screen(widget(tmp_path))
    seen.kernel_is_there = False
    seen.page.select_option("select", "contempt")
    seen.page.focus("section.wa")
    seen.page.keyboard.press("c")
    seen.page.keyboard.press("c")
    assert "3 not saved yet" in seen.text(".saved")
    seen.kernel_is_there = True
    seen.page.evaluate("window.model.save_changes()")
    seen.settle()
    assert "Feature 17" in seen.text("h3") and "no longer" in seen.text("[role=status]")
    read = readings(tmp_path / SAE, "first reader")
    assert list(read) == [5] and read[5].categories == {"evil": "contempt"}


@pytest.mark.browser
def test_what_two_tabs_do_is_kept(tmp_path: Path, screen) -> None:
    shown = widget(tmp_path)
    tabs = screen(shown), screen(shown)
    tabs[0].press("c")
    tabs[1].press("m")
    tabs[1].page.keyboard.type("late")
    tabs[1].settle()
    assert "no longer" in tabs[1].text("[role=status]"), "the other tab moved on: told, not taken for feature 17"
    tabs[1].press("Escape", "c")
    tabs[1].settle()
    read = readings(tmp_path / SAE, "first reader")
    assert {f: reading.verdict for f, reading in read.items()} == {5: "confirm", 17: "confirm"}
    assert len(shown.state["acknowledged"]) == 2 and not tabs[0].complaints + tabs[1].complaints


@pytest.mark.browser
def test_blind_reading_on_the_screen(tmp_path: Path, screen) -> None:
    seen = screen(widget(tmp_path, blind=True))
    assert "hidden" in seen.text(".proposed") and "insults number" not in seen.page.content()
    assert seen.page.get_by_role("button", name="Confirm").is_disabled()
    seen.page.select_option("select", "threats")
    seen.page.focus("section.wa")
    seen.press("e")
    seen.page.keyboard.type("rude words")
    seen.press("Enter")
    assert "insults number 5" in seen.text(".proposed") and "You wrote: rude words" in seen.text(".proposed")
    seen.press("r")
    assert readings(tmp_path / SAE, "first reader")[5].blind == {"trait": "evil", "label": "rude words", "category": "threats"}


@pytest.mark.browser
def test_a_wording_that_is_too_long_stays_in_the_field_and_is_explained(tmp_path: Path, screen) -> None:
    seen = screen(widget(tmp_path))
    seen.press("e")
    seen.page.keyboard.insert_text("a b c d e f g h i j k l m")
    seen.press("Enter")
    assert "13 words" in seen.text("[role=status]")
    assert seen.page.input_value("form input") == "a b c d e f g h i j k l m" and seen.page.locator("form").is_visible()


@pytest.mark.browser
def test_hostile_text_stays_text(tmp_path: Path, screen) -> None:
    item = Item(5, evidence_of(5, text=HOSTILE), label_of(5, label=HOSTILE[:40], explanation=HOSTILE))
    seen = screen(widget(tmp_path, [item], name=HOSTILE[:50]))
    seen.page.wait_for_timeout(50)
    assert seen.page.locator("img, script, iframe").count() == 0 and "<img src=x" in seen.text("mark")
    assert seen.complaints == [] and seen.requests == []


LUMINANCE = """
(element) => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const base = channels(getComputedStyle(document.querySelector(".wa")).backgroundColor);
  const style = getComputedStyle(element), back = light(over(channels(style.backgroundColor), base));
  const front = light(over(channels(style.color), base));
  return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
}
"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contexts_can_be_read_in_light_and_in_dark(tmp_path: Path, screen, scheme: str) -> None:
    seen = screen(widget(tmp_path), color_scheme=scheme)
    dark = seen.page.evaluate("getComputedStyle(document.querySelector('.wa')).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    for selector in ("mark", "li span >> nth=1", ".proposed .label"):
        assert seen.page.locator(selector).first.evaluate(LUMINANCE) >= 4.5, selector  # WCAG 2 AA


@pytest.mark.browser
def test_a_screen_reader_finds_names_and_the_notebooks_keys_are_kept_out(tmp_path: Path, screen) -> None:
    seen = screen(widget(tmp_path))
    for role, name in [("region", "Annotate features"), ("textbox", "Note"), ("combobox", "Category"), ("button", "Confirm"),
                       ("toolbar", "actions"), ("progressbar", "features read"), ("group", "proposed label")]:  # fmt: skip
        assert seen.page.get_by_role(role, name=name).count() == 1, (role, name)
    assert seen.page.get_attribute("[data-action=confirm]", "aria-keyshortcuts") == "c"
    assert seen.page.get_attribute("section.wa", "data-lm-suppress-shortcuts") == "true"
    heard = "window.heard = []; document.addEventListener('keydown', (event) => window.heard.push(event.key))"
    seen.page.evaluate(heard)
    seen.press("n", "b")
    assert seen.page.evaluate("window.heard") == []
    seen.page.get_by_role("button", name="Next").focus()
    seen.press("Enter")
    assert "Feature 17" in seen.text("h3") and seen.page.evaluate("document.activeElement.dataset.action") == "next"
    seen.page.evaluate("window.leave()")
    assert seen.page.evaluate("window.listeners['change:state'].length") == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 1200])
def test_nothing_is_wider_than_the_window(tmp_path: Path, screen, width: int) -> None:
    item = Item(5, evidence_of(5, text="x" * 400), label_of(5))
    seen = screen(widget(tmp_path, [item]), viewport={"width": width, "height": 800})
    seen.press("e")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
