"""A real JupyterLab on loopback, with settings of its own, in which a notebook is opened, run and looked at."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STARTED_WITHIN = 60.0


@contextlib.contextmanager
def jupyterlab(folder: Path, *, theme: str = "JupyterLab Light") -> Iterator[str]:
    """The address, token included, of a server whose files are those in `folder`; it is gone afterwards.

    Settings, workspaces, kernels' connection files and history live under `folder/.jupyter`: nothing of the user's is read.
    """
    private = folder / ".jupyter"
    _write_settings(private / "settings", theme)
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
              "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
              "IPYTHONDIR": "ipython"}  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | {name: str(private / place) for name, place in places.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--ServerApp.port=0", "--allow-root",
               f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly"]  # fmt: skip
    with (private / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
        try:
            yield _address(server, private)
        finally:
            server.terminate()  # shuts its kernels down too
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()


def _write_settings(folder: Path, theme: str) -> None:
    """The theme; and no news, no tour, no check for updates: none of them would find a network."""
    chosen = {"themes": {"theme": theme}, "notification": {"fetchNews": "false", "checkForUpdates": False}}
    for name, values in chosen.items():
        path = folder / "@jupyterlab" / "apputils-extension" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")


def _address(server: subprocess.Popen[bytes], private: Path) -> str:
    until = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < until and server.poll() is None:
        for found in (private / "runtime").glob("jpserver-*.json"):
            with contextlib.suppress(ValueError):  # half written
                said = json.loads(found.read_text(encoding="utf-8"))
                return f"{said['url']}lab/tree/NOTEBOOK?reset&token={said['token']}"
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{(private / 'log.txt').read_text(encoding='utf-8')[-3000:]}")


def write_notebook(path: Path, sources: Sequence[str]) -> Path:
    """A notebook of code cells that has never been run."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [new_code_cell(source) for source in sources]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def open_and_run(page: Any, address: str, name: str, *, n_cells: int, timeout_s: float = 90.0) -> Any:
    """Open the notebook in JupyterLab, run all its cells, wait for their end; the locator of its panel."""
    page.goto(address.replace("NOTEBOOK", name), timeout=1000 * timeout_s)
    panel = page.locator(".jp-NotebookPanel")
    panel.wait_for(timeout=1000 * timeout_s)
    page.locator("#jp-main-statusbar", has_text="| Idle").first.wait_for(timeout=1000 * timeout_s)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    panel.locator(".jp-InputPrompt", has_text=f"[{n_cells}]").wait_for(timeout=1000 * timeout_s)
    return panel
