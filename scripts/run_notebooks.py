"""Execute the notebooks and write their outputs into them, without anything of the machine that ran them.

    python scripts/run_notebooks.py                          # all of them
    python scripts/run_notebooks.py notebooks/05_*.ipynb     # some

They run in `runs/notebooks`, which keeps what they sample and train. Beside every SVG a PNG is stored (drawn by
Chromium): JupyterLab shows no SVG of a notebook that it does not trust yet. A notebook that warns, names a folder of
this machine or grows beyond 150 kB is not written.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from screenshot import small

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, WORK = ROOT / "notebooks", ROOT / "runs" / "notebooks"
MAX_BYTES = 150_000


def main(arguments: list[str]) -> int:
    paths = [Path(argument) for argument in arguments] or sorted(NOTEBOOKS.glob("*.ipynb"))
    bad = 0
    for path in paths:
        started = time.perf_counter()
        problems = written(path)
        bad += bool(problems)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s{''.join(f'; {one}' for one in problems)}", flush=True)
    return 1 if bad else 0


def written(path: Path) -> list[str]:
    """Execute the notebook at `path` and write it there; what was wrong with it, if it was not written."""
    notebook = with_pictures(cleaned(executed(nbformat.read(path, as_version=4), WORK)))
    text = nbformat.writes(notebook) + "\n"
    found = problems(notebook, text)
    if not found:
        path.write_text(text, encoding="utf-8")
    return found


def executed(notebook: Any, folder: Path, *, timeout: int = 3600) -> Any:
    """The notebook after a run in a fresh kernel whose working folder is `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in NOTEBOOKS.glob("*.json"):
        shutil.copy(data, folder)
    os.environ |= {"PYTHONPATH": str(ROOT), "WORKBENCH_PROGRESS": "0"}
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False,
                            resources={"metadata": {"path": str(folder)}})  # fmt: skip
    return client.execute()


def cleaned(notebook: Any) -> Any:
    """The same without the marks of a machine: versions, times, ids, and outputs that say nothing."""
    notebook.metadata = {"kernelspec": dict(notebook.metadata["kernelspec"]), "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        for output in cell.get("outputs", ()):
            output.pop("transient", None)
            if "metadata" in output:
                output["metadata"] = {}
        if "outputs" in cell:
            cell.outputs = [one for one in cell.outputs if one.output_type == "error" or _says_something(one)]
    return notebook


def with_pictures(notebook: Any) -> Any:
    """The same with an image/png beside every image/svg+xml, as it looks on white."""
    from playwright.sync_api import sync_playwright

    drawn = [one.data for cell in notebook.cells for one in cell.get("outputs", ()) if "image/svg+xml" in one.get("data", {})]
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if drawn:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            for data in drawn:
                page.set_content(f'<body style="margin:0">{data["image/svg+xml"]}</body>')
                data["image/png"] = base64.b64encode(small(page.locator("svg").first.screenshot())).decode()
            browser.close()
    return notebook


def _says_something(output: Any) -> bool:
    return bool(output.get("text", "").strip() or any(str(value).strip() for value in output.get("data", {}).values()))


def problems(notebook: Any, text: str) -> list[str]:
    """Why the notebook should not be kept."""
    found = [f"it has {len(text):,} bytes"] if len(text.encode()) > MAX_BYTES else []
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    found += [f"it says on standard error: {one.text[:200]!r}" for one in outputs if one.get("name") == "stderr"]
    places = {str(ROOT), str(Path.home()), tempfile.gettempdir(), sys.prefix}
    return found + [f"it names {place}" for place in sorted(places) if place + os.sep in text]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
