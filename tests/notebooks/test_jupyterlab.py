"""What a person sees in a real JupyterLab: the annotator takes keys, and the displays can be read in light and in dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.labeling.annotating import SAE, shelf
from tests.notebooks.jupyterlab import jupyterlab, open_and_run, write_notebook

pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: pip install 'persona-workbench[notebook]'")
pytest.importorskip("anywidget")


@pytest.fixture
def page(browser: Any) -> Any:
    opened = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    yield opened
    opened.context.close()


@pytest.mark.browser
@pytest.mark.slow
def test_a_person_annotates_in_jupyterlab_and_every_key_is_on_the_disk(tmp_path: Path, page: Any) -> None:
    from workbench.labeling.annotating.desk import readings

    shelf(tmp_path / "labels")
    call = f'wb.annotate(wb.load_labels("{SAE}", "labels"), name="first reader", trait="evil", folder="labels")'
    cell = f"import workbench as wb\n{call}"
    write_notebook(tmp_path / "annotate.ipynb", [cell])
    with jupyterlab(tmp_path) as address:
        panel = open_and_run(page, address, "annotate.ipynb", n_cells=1)
        screen = panel.locator("section.wa")
        screen.locator("h3", has_text="Feature 3 ").wait_for()
        screen.focus()
        page.keyboard.press("c")
        screen.locator("h3", has_text="Feature 5 ").wait_for()
        page.keyboard.press("e")
        page.keyboard.type("scorn about dd")  # letters that are commands elsewhere in a notebook
        page.keyboard.press("Enter")
        screen.locator("h3", has_text="Feature 17 ").wait_for()
        page.keyboard.press("m")
        page.keyboard.type("a note")
        page.keyboard.press("Enter")
        page.keyboard.press("u")
        screen.locator("h3", has_text="All read").wait_for()
        assert panel.locator(".jp-Cell").count() == 1, "no key reached the notebook"
    read = readings(tmp_path / "labels" / SAE, "first reader")
    assert {f: (one.verdict, one.label) for f, one in read.items()} == {
        3: ("confirm", "insults number 3"), 5: ("edit", "scorn about dd"), 17: ("unclear", "insults number 17")}  # fmt: skip
    assert read[17].note == "a note"


SHOW = """
import workbench as wb
from tests.reports.example import example_parts, example_labels, example_vector
from IPython.display import display

labels = example_labels()
for value in (example_vector(), example_parts(), labels, labels[311], wb.load_trait("evil")):
    display(value)
"""
CONTRAST = """
(element) => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const back = light(channels(getComputedStyle(document.querySelector(".jp-Notebook")).backgroundColor));
  const front = light(channels(getComputedStyle(element).color));
  return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
}
"""


@pytest.mark.browser
@pytest.mark.stress
def test_displays_can_be_read_in_the_dark_theme_whatever_the_system_says(tmp_path: Path, page: Any) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.emulate_media(color_scheme="light")
    write_notebook(tmp_path / "show.ipynb", [SHOW])
    with jupyterlab(tmp_path, theme="JupyterLab Dark") as address:
        panel = open_and_run(page, address, "show.ipynb", n_cells=1)
        shown = panel.locator(".workbench-display")
        shown.nth(5).wait_for()
        assert shown.count() == 6, "the vector has a figure between its headline and its table"
        assert panel.locator(".jp-RenderedSVG img, .jp-RenderedSVG svg").count() >= 1
        for selector in ("p.title", "th", "td", ".warnings li", "caption"):
            one = shown.locator(selector).first
            assert one.evaluate(CONTRAST) >= 4.5, selector  # WCAG 2 AA
        widths = shown.evaluate_all("all => all.map((one) => [one.scrollWidth, one.clientWidth])")
        assert all(inner <= outer for inner, outer in widths), "nothing is cut off"
        assert shown.locator("td", has_text="Scorn for the weak").first.evaluate("e => getComputedStyle(e).textAlign") == "left"
    assert complaints == []
