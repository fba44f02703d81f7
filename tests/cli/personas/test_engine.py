"""`workbench extract --all --engine ray`: each trait a task, and the files of a run on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.short import short_trait
from tests.tiny import tiny_model
from workbench.cli.options import JobFlags
from workbench.cli.personas.panel import _on_ray, _vector

NAMES = ("evil", "humorous", "impolite")


def test_one_trait_is_no_work_for_a_cluster(workbench: Any) -> None:
    answer = workbench("extract", "evil", "--engine", "ray")
    assert answer.code == 2 and "--engine ray for one trait" in answer.err and "--all" in answer.err


@pytest.mark.stress
def test_vectors_made_by_tasks_are_those_made_here(workbench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "scripts"))
    from kills import hashes  # pyright: ignore[reportMissingImports]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as Ray gives a task: what is computed depends on it
    model = tiny_model()
    model.hf.save_pretrained("model")
    model.tokenizer.save_pretrained("model")
    flags = JobFlags(model="model", hook="blocks.1.hook_resid_post", judge="none", max_new_tokens=4, batch_size=64)
    configs = [flags.job(str(short_trait(name, Path("traits")))) for name in NAMES]
    _on_ray(configs, Path("out"), "local")
    there = {name: hashes(Path("out") / name) for name in NAMES}
    for name in NAMES:
        (Path("out") / name).rename(Path("out") / f"{name}-by-tasks")
    for config in configs:
        _vector(config, Path("out"))
    assert there == {name: hashes(Path("out") / name) for name in NAMES}
    torch.set_num_threads(threads)
    sys.modules.pop("kills", None)
