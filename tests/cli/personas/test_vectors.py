"""The commands import, export and show: what they print, what they leave, what they ask for."""

from __future__ import annotations

import pytest
import torch

from tests.cli.test_bad_input import assert_refused
from tests.personas.formats.made import layered, matrix, saved
from workbench.models.hookpoints import HookPoint


@pytest.fixture
def file(tmp_path):
    return saved(tmp_path / "evil_response_avg_diff.pt", matrix(5))


def test_formats_in_the_help_are_those_of_the_registry(workbench):
    from workbench.cli.personas.vectors import FORMAT_NAMES
    from workbench.personas.formats import FORMATS

    assert tuple(FORMATS) == FORMAT_NAMES
    writable = [name for name in FORMATS if FORMATS[name].write]
    text = " ".join(workbench("vectors", "export", "--help").out.split()).replace("- ", "-")
    assert ", ".join(writable) in text


def test_import_export_and_show_agree(workbench, file, tmp_path):
    done = workbench(
        "vectors", "import", file, "--model", "owner/name", "--layer", 2, "--out", tmp_path / "v", "--json"
    )
    assert done.code == 0
    value = done.json
    assert value["trait"] == "evil" and value["hook"] == "blocks.2.hook_resid_post"
    assert value["source"]["format"] == "persona-vectors" and len(value["vectors"]) == 4
    shown = workbench("vectors", "show", tmp_path / "v", "--json").json
    assert shown == {key: value[key] for key in shown}
    written = workbench(
        "vectors", "export", tmp_path / "v", "--format", "persona-vectors", "--out", tmp_path / "again.pt"
    )
    assert written.code == 0 and "wrote" in written.out
    assert torch.equal(torch.load(tmp_path / "again.pt", weights_only=True), matrix(5))


def test_a_file_is_shown_without_a_model(workbench, file):
    value = workbench("vectors", "show", file, "--json").json
    assert value["extras"] == {"ln_final": [6]}
    text = workbench("vectors", "show", file).out
    assert "blocks.2.hook_resid_post" in text and "ln_final" in text and "no model named" in text


def test_a_run_folder_is_exported_at_every_block(workbench, tmp_path):
    layered(hook=HookPoint(1)).persona_vector().save(tmp_path / "run" / "vector")
    done = workbench(
        "vectors", "export", tmp_path / "run", "--format", "gguf", "--out", tmp_path / "v.gguf", "--json"
    )
    assert done.code == 0 and done.json["format"] == "gguf"
    names = [
        row["hook"] for row in workbench("vectors", "show", tmp_path / "v.gguf", "--json").json["vectors"]
    ]
    assert names == [f"blocks.{block}.hook_resid_post" for block in (1, 2, 3)]


def test_a_missing_model_or_hook_is_asked_for_and_nothing_is_written(workbench, file, tmp_path):
    assert_refused(workbench("vectors", "import", file, "--out", tmp_path / "v"), "of which model", "--model")
    bare = saved(tmp_path / "bare.pt", matrix(1)[0])
    answer = workbench("vectors", "import", bare, "--model", "owner/name", "--out", tmp_path / "v")
    assert_refused(answer, "--hook", "--layer")
    assert not (tmp_path / "v").exists()


def test_refusals_of_the_commands(workbench, file, tmp_path):
    out = ("--out", tmp_path / "v")
    both = workbench(
        "vectors", "import", file, "--model", "a/b", "--hook", "blocks.1.hook_resid_post", "--layer", 1, *out
    )
    assert_refused(both, "both --hook and --layer")
    assert_refused(workbench("vectors", "import", file, "--model", "a/b", "--layer", -1, *out), "block -1")
    assert_refused(
        workbench("vectors", "import", file, "--model", "a/b", "--hook", "layer 1", *out),
        "is not a hook point",
    )
    assert_refused(
        workbench("vectors", "import", tmp_path / "none.pt", "--model", "a/b", *out), "no such file"
    )
    assert_refused(workbench("vectors", "show", tmp_path / "none.pt"), "no such file")
    assert_refused(workbench("vectors", "show", tmp_path), "holds no vectors")
    assert_refused(
        workbench("vectors", "export", tmp_path, "--format", "gguf", "--out", tmp_path / "x"),
        "holds no vectors",
    )
    layered().save(tmp_path / "ours")
    for name, match in {
        "nope": "there is no format 'nope'",
        "saklas": "saklas is only read",
        "tensor": "none was chosen",
    }.items():
        answer = workbench("vectors", "export", tmp_path / "ours", "--format", name, "--out", tmp_path / "x")
        assert_refused(answer, match)
    assert not (tmp_path / "x").exists() and not (tmp_path / "v").exists()
