"""Progress, interrupts and errors in the kernel of a notebook."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
ROOT = Path(__file__).resolve().parents[2]

WORK = """
import time
from workbench.base.progress import track

print("before")
with track("rollouts", 40, "rows") as step, track("inside", None, "tokens") as inner:
    for _ in range(40):
        time.sleep(0.01)
        step()
        inner(3, note="loss 0.5")
"""
STOP = """
import _thread, threading, time
from workbench.base.progress import track

threading.Timer(0.3, _thread.interrupt_main).start()
with track("outer", 2, "steps"), track("rollouts", 500, "rows") as step:
    step(120)
    for _ in range(300):  # a long sleep would not notice: nothing wakes it
        time.sleep(0.1)
"""


def executed(monkeypatch: pytest.MonkeyPatch, *sources: str, progress: str | None = None) -> Any:
    """The cells after a run in a fresh kernel, errors kept."""
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("WORKBENCH_PROGRESS", raising=False)
    if progress is not None:
        monkeypatch.setenv("WORKBENCH_PROGRESS", progress)
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True)
    seen: list[dict[str, Any]] = []
    handler = client.process_message

    def noted(message: Any, cell: Any, cell_index: int) -> Any:
        if message["msg_type"] in ("display_data", "update_display_data"):
            seen.append({"type": message["msg_type"], **message["content"]["data"]})
        return handler(message, cell, cell_index)

    client.process_message = noted  # type: ignore[method-assign]
    client.execute()
    return notebook.cells, seen


def test_a_notebook_gets_one_line_that_is_updated_in_place_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    (cell,), seen = executed(monkeypatch, WORK)
    kinds = [one["type"] for one in seen]
    assert kinds[0] == "display_data" and set(kinds[1:]) == {"update_display_data"} and len(kinds) <= 8
    assert any("<progress" in one.get("text/html", "") and "rows" in one["text/plain"] for one in seen)
    assert any("tokens" in one["text/plain"] and "loss 0.5" in one["text/plain"] for one in seen)
    texts = [output.get("text", "") or output["data"].get("text/plain", "") for output in cell.outputs]
    assert texts == ["before\n", ""], "what was printed stays, the bar is gone"


def test_nothing_is_shown_when_progress_is_switched_off(monkeypatch: pytest.MonkeyPatch):
    (cell,), seen = executed(monkeypatch, WORK, progress="0")
    assert seen == [] and len(cell.outputs) == 1


@pytest.mark.skipif(os.name == "nt", reason="interrupts are sent differently")
def test_an_interrupt_and_an_error_are_told_in_words_without_a_traceback(monkeypatch: pytest.MonkeyPatch):
    (stopped, failed, alive), _ = executed(monkeypatch, STOP, "import workbench as wb\nwb.load_trait('evli')", "1 + 1")
    told = next(output for output in stopped.outputs if output.output_type == "error")
    assert told.ename == "Interrupted" and len(told.traceback) == 2
    assert "Interrupted: rollouts, 120/500 rows." in told.traceback[0] and "again to go on" in told.traceback[1]
    wrong = next(output for output in failed.outputs if output.output_type == "error")
    assert len(wrong.traceback) == 1 and wrong.traceback[0].startswith("WorkbenchError: There is no trait 'evli'")
    assert alive.outputs[0]["data"]["text/plain"] == "2"
