"""The notebooks run, stay short, and read well without being run.

What needs a model runs on a tiny seeded one with a planted SAE: the machinery is the same, the numbers mean nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.planted import planted_sae
from tests.reports.example import SAE_HASH, SAE_ID, example_labels, example_parts, example_vector
from tests.tiny import tiny_model
from tests.toy_run import finished_run

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
MAX_BYTES = 150_000


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, timeout: int = 120, **environment: str) -> Any:
    """The notebook whose name starts so, after a run in a fresh kernel whose working folder is `folder`."""
    from nbclient import NotebookClient

    for data in NOTEBOOKS.glob("*.json"):
        shutil.copy(data, folder)
    for key, value in {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}.items():
        monkeypatch.setenv(key, value)
    (path,) = NOTEBOOKS.glob(f"{name}_*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings with which a notebook takes a tiny model and a planted SAE of it, both saved on the disk."""
    from workbench.saes.formats import saelens

    root = tmp_path_factory.mktemp("tiny")
    model = tiny_model()
    model.hf.save_pretrained(root / "tiny")
    model.tokenizer.save_pretrained(root / "tiny")
    sae = replace(planted_sae(), model_name="tiny")
    return {"WORKBENCH_MODEL": str(root / "tiny"), "WORKBENCH_SAE": str(saelens.write(sae, root / "sae"))}


def kinds(notebook: Any) -> list[set[str]]:
    """The kinds of rich output of each code cell."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in cells]


def said(notebook: Any) -> str:
    """All outputs as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text") or str(output.get("data", {}).get("text/plain", "")) for output in outputs)


# ------------------------------------------------------------------------------------------------ as they are stored


def test_there_are_nine_and_each_is_named_by_its_number():
    assert [path.name[:3] for path in PATHS] == [f"{i:02d}_" for i in range(1, len(PATHS) + 1)] and len(PATHS) == 9


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_says_how_to_run_it_and_what_it_does_not_show(path: Path):
    cells = nbformat.read(path, as_version=4).cells
    assert len(cells) < 15 and path.stat().st_size < MAX_BYTES
    assert all(len(cell.source.splitlines()) < 10 for cell in cells if cell.cell_type == "code")
    assert cells[0].cell_type == "markdown" and "pip install" in cells[0].source
    assert cells[-1].cell_type == "markdown" and cells[-1].source.startswith("## What this does not show")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_stored_notebook_reads_well_without_being_run(path: Path):
    notebook = nbformat.read(path, as_version=4)
    text = path.read_text(encoding="utf-8")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom, once"
    assert sum(bool(cell.outputs) for cell in code) >= 4
    outputs = [output for cell in code for output in cell.outputs]
    assert not [one for one in outputs if one.get("name") == "stderr"], "no warnings, no progress"
    assert not re.search(r"<progress|widget-view|\"execution\": \{|iopub", text), "no residue of progress, no times"
    assert not re.search(r"(/root/|/home/|/Users/|/tmp/|C:\\\\)", text), "no folder of a machine"
    assert set(notebook.metadata) == {"kernelspec", "language_info"} and set(notebook.metadata["language_info"]) == {"name"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    refused = [output for output in outputs if output.output_type == "error"]
    assert all(one.ename == "WorkbenchError" and len(one.traceback) == 1 for one in refused), "errors are meant, and in words"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_stored_needs_neither_style_nor_script(path: Path):
    """Code hosts drop styles and scripts, and drawings inside HTML; JupyterLab shows no SVG before it trusts a notebook."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            html, svg = str(data.get("text/html", "")), str(data.get("image/svg+xml", ""))
            assert "<script" not in html and "<svg" not in html and "<script" not in svg
            assert not svg or ("image/png" in data and "var(--" not in svg and data["text/plain"].startswith("Figure: "))
            assert not svg or 'class="wbf-paper" fill="#fff"' in svg, "colours as attributes"
            assert not html or re.search(r"<(td|p|th)\b", html), "plain elements"


def test_the_figures_of_the_first_notebook_are_those_of_the_evidence():
    """When the main job was measured again: python scripts/run_notebooks.py notebooks/01_*.ipynb."""
    measured = json.loads((ROOT / "docs" / "evidence" / "main_job.json").read_text(encoding="utf-8"))
    text = PATHS[0].read_text(encoding="utf-8")
    for name in ("auc_stripped", "auc_random_q95", "auc_text_only"):
        assert f">{measured['report']['vector'][name]:.3g}<" in text, name
    assert f"own error: {100 * measured['share_error']:.1f}%" in text


# ------------------------------------------------------------------------------------------------ executed


def test_what_is_evil_made_of_reads_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On made-up values in the real types: no model is loaded."""
    from workbench.labeling.files.store import save_labels

    run = tmp_path / "runs" / "evil-smollm2-135m-instruct"
    example_vector().save(run / "vector")
    example_parts().save(run / "decomposition")
    save_labels(example_labels(), run / "labels")
    assert example_labels().sae_hash == SAE_HASH and example_parts().sae["id"] == SAE_ID
    done = executed("01", tmp_path, monkeypatch)
    shown = kinds(done)
    assert sum("text/html" in one for one in shown) == 4 and sum("image/svg+xml" in one for one in shown) == 2
    assert (tmp_path / "evil.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_bring_your_own_trait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_world: dict[str, str]):
    done = executed("02", tmp_path, monkeypatch, **tiny_world)
    assert (tmp_path / "traits" / "pirate").is_dir() and list((tmp_path / "runs").glob("pirate-*/rollouts"))
    assert "PersonaVector(trait='pirate'" in said(done) and sum("text/html" in one for one in kinds(done)) >= 6


def test_bring_your_own_model_and_sae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_world: dict[str, str]):
    done = executed("03", tmp_path, monkeypatch, **tiny_world)
    errors = [output for cell in done.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    assert len(errors) == 1 and "from the same hook point" in errors[0].evalue
    last = [cell for cell in done.cells if cell.cell_type == "code"][-1].outputs[0]["data"]["text/html"]
    assert re.search(r'<td[^>]*>7</td>\s*<td[^>]*>1</td>', last.split("<tbody>")[1]), "feature 7 is found as itself"


def test_train_an_sae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_world: dict[str, str]):
    done = executed("04", tmp_path, monkeypatch, **tiny_world)
    assert (tmp_path / "runs" / "my_sae" / "training" / "log.jsonl").is_file()
    assert any("image/svg+xml" in one for one in kinds(done)) and said(done).count("Fitness(") == 2


def test_label_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done = executed("05", tmp_path, monkeypatch, WORKBENCH_CACHE=str(tmp_path / "cache"))
    assert "FeatureLabel(feature=18" in said(done) and sum("text/html" in one for one in kinds(done)) == 4


def test_check_yourself_in_the_laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The figures that are stored are those that come out again."""
    done = executed("06", tmp_path, monkeypatch)
    (path,) = NOTEBOOKS.glob("06_*.ipynb")
    tables = [re.findall(r"0\.\d\d|1\.\d\d", said(one)) for one in (done, nbformat.read(path, as_version=4))]
    assert tables[0] == tables[1] and len(tables[0]) >= 12


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_world: dict[str, str]) -> Path:
    """A finished run of evil by the tiny model that the settings name."""
    from workbench.models.loading import load_model

    return finished_run(load_model(tiny_world["WORKBENCH_MODEL"]), tmp_path_factory.mktemp("run") / "evil")


def test_steer_and_watch_a_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_world: dict[str, str], tiny_run: Path
):  # fmt: skip
    shutil.copytree(tiny_run, tmp_path / "runs" / "evil-smollm2-135m-instruct")
    done = executed("07", tmp_path, monkeypatch, **tiny_world)
    assert said(done).count("SideBySide(") == 2 and "WatchedReply(" in said(done)
    assert sum("image/svg+xml" in one for one in kinds(done)) == 1


def test_what_would_a_data_set_teach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_world: dict[str, str], tiny_run: Path
):  # fmt: skip
    shutil.copytree(tiny_run, tmp_path / "runs" / "evil-smollm2-135m-instruct")
    done = executed("08", tmp_path, monkeypatch, **tiny_world)
    assert len((tmp_path / "kept.jsonl").read_text(encoding="utf-8").splitlines()) < 48
    assert (tmp_path / "runs" / "adapter").is_dir() and "ModelDiff(" in said(done)


def test_map_the_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_world: dict[str, str]):
    from workbench.axis.roles import load_roles
    from workbench.axis.space.design import RoleDesign
    from workbench.axis.space.mapping import map_roles
    from workbench.models.generation import Sampling
    from workbench.models.loading import load_model

    design = RoleDesign(n_questions=8, n_calibration=2, n_prompts=2, n_default_samples=1, min_count=2,
                        sampling=Sampling(max_new_tokens=6))  # fmt: skip
    roles = load_roles(["ghost", "pirate", "poet", "reviewer"])
    model = load_model(tiny_world["WORKBENCH_MODEL"], dtype="bfloat16")
    hook = str(planted_sae().hook)
    map_roles(model, tmp_path / "runs" / "axis-smollm2-135m-instruct", design=design, judge="none", hook=hook, roles=roles)
    done = executed("09", tmp_path, monkeypatch, **tiny_world)
    assert "PersonaSpace(" in said(done) and "SideBySide(" in said(done)
    assert sum("image/svg+xml" in one for one in kinds(done)) >= 2


def test_the_script_refuses_what_names_a_machine_and_what_warns(monkeypatch: pytest.MonkeyPatch):
    import importlib.util

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "scripts" / "run_notebooks.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    warned = new_output("stream", name="stderr", text="a warning")
    blank = new_output("display_data", data={"text/plain": ""})
    named = new_output("stream", name="stdout", text=f"{Path.home()}{os.sep}x")
    notebook = new_notebook(cells=[new_code_cell("1", outputs=[warned, blank, named])],
                            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}, "widgets": {}})  # fmt: skip
    notebook.cells[0].metadata["execution"] = {"iopub.execute_input": "now"}
    found = script.cleaned(notebook)
    assert len(found.cells[0].outputs) == 2 and not found.cells[0].metadata and "widgets" not in found.metadata
    problems = script.problems(found, nbformat.writes(found))
    assert any("standard error" in one for one in problems) and any(str(Path.home()) in one for one in problems)
