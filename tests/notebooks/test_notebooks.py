"""The notebooks run, and stay short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.example import SAE_HASH, SAE_ID, example_labels, example_parts, example_vector

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
EVIL = NOTEBOOKS / "01_what_is_evil_made_of.ipynb"


def executed(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *, timeout: int, **environment: str):
    """The notebook after a run in a fresh kernel, from the folder of the checkout."""
    import nbformat
    from nbclient import NotebookClient

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORKBENCH_NOTEBOOK_REPORT", str(folder / "report.html"))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def output_types(notebook) -> list[set[str]]:
    """The kinds of rich output of each code cell."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in cells]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_has_few_cells_and_short_ones(path: Path):
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    assert len(cells) < 15
    assert all(len(cell.source.splitlines()) < 10 for cell in cells if cell.cell_type == "code")
    assert all(output.output_type != "error" for cell in cells for output in cell.get("outputs", ()))


def test_the_first_notebook_shows_a_finished_run_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from workbench.labeling.files.store import save_labels

    example_vector().save(tmp_path / "run" / "vector")
    example_parts().save(tmp_path / "run" / "decomposition")
    save_labels(example_labels(), tmp_path / "run" / "labels")
    assert example_labels().sae_hash == SAE_HASH and example_parts().sae["id"] == SAE_ID
    done = executed(EVIL, tmp_path, monkeypatch, timeout=120, WORKBENCH_RUN=str(tmp_path / "run"))
    shown = output_types(done)
    assert sum("text/html" in kinds for kinds in shown) == 4
    assert sum("image/svg+xml" in kinds for kinds in shown) == 1
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.assets
@pytest.mark.slow
def test_the_first_notebook_computes_everything_on_reduced_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = {"WORKBENCH_NOTEBOOK_QUICK": "1", "WORKBENCH_NOTEBOOK_OUT": str(tmp_path / "run")}
    done = executed(EVIL, tmp_path, monkeypatch, timeout=400, **folder)
    assert sum("text/html" in kinds for kinds in output_types(done)) >= 4
    assert (tmp_path / "report.html").exists()
