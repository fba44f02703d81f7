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
    cell = f'import workbench as wb\nwb.annotate(wb.load_labels("{SAE}", "labels"), name="first reader", trait="evil", folder="labels")'
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
