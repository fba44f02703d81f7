"""`workbench sae train`: what is refused before anything is loaded, sweeps, kept rollouts, and whole runs on a tiny model."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.short import short_trait
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.cli.saes import training as sae_jobs
from workbench.cli.saes.training import kept_rollouts, training_job
from workbench.personas.traits import load_trait
from workbench.saes.recipe import DataMix, Recipe

HOOK = "blocks.1.hook_resid_post"


def _saved(folder: Path, seed: int) -> str:
    made = tiny_model(seed=seed)
    made.hf.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models of one name and shape, with different weights."""
    folder = tmp_path_factory.mktemp("models")
    return _saved(folder / "a" / "tiny", 0), _saved(folder / "b" / "tiny", 1)


def _recipe(path: Path, **settings: Any) -> Path:
    document = {
        "hook": HOOK,
        "capture_dtype": "float32",
        "training": {"d_sae": 32, "k": 4, "batch_size": 128, "n_steps": 10, "log_every": 5, "precision": "float32"},
        **settings,
    }
    document["data"] = {"characters": 20_000, "per_source": 20_000, "chats": 0, "traits": [], **settings.get("data", {})}
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"Line {i}: some words about the sea, its ships and its weather." for i in range(400)))
    return str(path)


@pytest.mark.parametrize(
    ("sweep", "names"),
    [
        (["k=4,8"], ["sae-k4", "sae-k8"]),
        (["k=4", "k=8,4"], ["sae-k4", "sae-k8"]),
        (["k=4,8", "seed=0,1"], ["sae-k4-seed0", "sae-k4-seed1", "sae-k8-seed0", "sae-k8-seed1"]),
        (["matryoshka=[8,16],[12]"], ["sae-matryoshka8-16", "sae-matryoshka12"]),
        (["learning_rate=1e-4,0.002"], ["sae-learning_rate0.0001", "sae-learning_rate0.002"]),
    ],
)
def test_a_sweeps_values_are_a_yaml_list_and_make_names(tmp_path: Path, sweep: list[str], names: list[str]) -> None:
    training = {"d_sae": 32, "k": 4, "architecture": "matryoshka_batchtopk", "matryoshka": [8]}
    recipe = training_job(_recipe(tmp_path / "t.yaml", training=training), None, sweep=sweep).recipe
    assert [plan.name for plan in recipe.plans] == names
    if "matryoshka" in sweep[0]:
        assert [plan.training.matryoshka for plan in recipe.plans] == [(8, 16), (12,)]
    assert json.loads(json.dumps(recipe.to_json()))["saes"][0]["name"] == names[0]


@pytest.mark.parametrize("sweep", ["name=a,b", "k", "k=", "=4", "k=[4", "k=4]", "k=,4", "k=4,,8", "kk=4"])
def test_a_sweep_that_makes_no_sense_is_refused(tmp_path: Path, sweep: str) -> None:
    with pytest.raises(WorkbenchError, match=r"kk|sweep"):
        training_job(_recipe(tmp_path / "t.yaml"), None, sweep=[sweep])


def test_the_command_in_the_card_says_all_that_matters_and_a_shell_can_read_it(tmp_path: Path) -> None:
    config = _recipe(tmp_path / "my recipe.yaml")
    job = training_job(config, None, device="cpu", sweep=["k=4, 8"], engine="ray", saes_per_pass=2)
    assert shlex.split(job.command) == [
        "workbench", "sae", "train", str(config), "--sweep", "k=4, 8", "--device", "cpu", "--engine", "ray",
        "--saes-per-pass", "2",
    ]  # fmt: skip
    assert shlex.split(training_job(config, None).command) == ["workbench", "sae", "train", str(config)]


def test_the_folder_of_a_job_is_absolute(workbench: Any, tmp_path: Path) -> None:
    job = training_job(_recipe(tmp_path / "t.yaml"), Path("here"))
    assert job.folder == Path.cwd() / "here"
    assert training_job(_recipe(tmp_path / "t.yaml"), None).folder == Path.cwd() / "runs" / "sae-t"


@pytest.mark.parametrize(
    ("settings", "flags", "message"),
    [
        ({"data": {"corpus": "texts/mine.jsonl"}}, [], "does not exist"),
        ({"data": {"rollouts": "runs"}}, [], "data.traits is empty"),
        ({"activations": "memory"}, ["--engine", "ray"], "activations: disk"),
        ({}, ["--address", "auto"], "add --engine ray"),
        ({}, ["--engine", "dask"], "dask"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_even_as_a_plan(
    workbench: Any, tmp_path: Path, settings: dict[str, Any], flags: list[str], message: str
) -> None:
    answer = workbench("sae", "train", _recipe(tmp_path / "t.yaml", **settings), *flags, "--plan")
    assert answer.code == 2 and message in " ".join(answer.err.split())
    assert not list(Path.cwd().iterdir())


def test_a_plan_reads_no_rollouts_and_counts_none_to_be_sampled(workbench: Any, tmp_path: Path) -> None:
    data = {"traits": ["evil"], "rollouts": "nowhere", "chats": 10}
    plan = workbench("sae", "train", _recipe(tmp_path / "t.yaml", data=data), "--plan", "--json").json
    sampled = next(step["seconds"] for step in plan["steps"] if step["step"] == "sample chats")
    assert sampled == pytest.approx(10 * 64 / sae_jobs.SAMPLED_TOKENS_PER_SECOND, abs=0.1)


@dataclass
class _Runs:
    """A finished run of a small trait, and how to ask for its rollouts."""

    folder: Path
    trait: str

    def of(self, model: str) -> list[tuple[str, str, str]]:
        ask = kept_rollouts(Recipe(model=model, data=DataMix(rollouts=str(self.folder), traits=(self.trait,))))
        assert ask is not None
        return ask(self.trait)


@pytest.fixture
def runs(workbench: Any, models: tuple[str, str], tmp_path: Path) -> _Runs:
    trait = short_trait("evil", tmp_path / "traits", n_questions=(10, 2, 2), n_instructions=2)
    done = workbench("extract", trait, "--model", models[0], "--judge", "none", "--max-new-tokens", "4", "--batch-size", "64",
                     "--hook", HOOK, "-q", "--out", tmp_path / "runs" / "evil-tiny")  # fmt: skip
    assert done.code == 0, done.err
    return _Runs(tmp_path / "runs", str(trait))


def test_rollouts_of_a_finished_run_are_read_and_those_of_other_weights_or_questions_refused(
    workbench: Any, models: tuple[str, str], runs: _Runs, tmp_path: Path, text: str
) -> None:
    found = runs.of(models[0])
    assert len(found) == 10 * 2 * 3
    assert {question for _, question, _ in found} == {q.text for q in load_trait(runs.trait).questions_of("extraction")}
    with pytest.raises(WorkbenchError, match="are of tiny"):
        runs.of(models[1])  # a folder of the same name with other weights
    data = {"corpus": text, "traits": [runs.trait], "rollouts": str(runs.folder)}
    config = _recipe(tmp_path / "t.yaml", model=models[1], data=data)
    answer = workbench("sae", "train", config)
    assert answer.code == 2 and "are of tiny" in " ".join(answer.err.split())
    _swap_splits(Path(runs.trait) / "trait.yaml")
    with pytest.raises(WorkbenchError, match="none of"):
        runs.of(models[0])


def _swap_splits(path: Path) -> None:
    """One extraction question becomes a sealed one."""
    document = yaml.safe_load(path.read_text())
    document["questions"]["sealed"].append(document["questions"]["extraction"].pop())
    path.write_text(yaml.safe_dump(document))


def test_rollouts_without_a_finished_run_are_refused(models: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="holds no rollouts of evil"):
        _Runs(tmp_path, "evil").of(models[0])


def test_a_pass_on_a_gpu_gets_one_and_sees_only_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Part:
        device: str
        out: Path = Path()

    asked: dict[str, Any] = {}

    def on_ray(function: Any, tasks: Any, **options: Any) -> Any:
        asked.update(options)
        return map(function, tasks)

    monkeypatch.setattr("workbench.cluster.on_ray", on_ray)
    for device, there, gpus in (("cuda:1", "cuda", 1), ("cuda:0", "cuda", 1), ("cpu", "cpu", 0)):
        seen = list(sae_jobs._on_cluster(lambda one: one.device, [Part(device)], address="auto"))  # pyright: ignore
        assert (seen, asked) == ([there], {"address": "auto", "gpus_per_task": gpus})


def test_one_that_diverges_is_told_after_the_others_of_every_pass_were_saved(
    workbench: Any, models: tuple[str, str], tmp_path: Path, text: str
) -> None:
    saes = [{"name": "bad", "learning_rate": 1e30, "warm_up": 0.0}, {"name": "good"}]
    config = _recipe(tmp_path / "t.yaml", model=models[0], data={"corpus": text}, saes=saes)
    answer = workbench("sae", "train", config, "--saes-per-pass", "1", "--out", "made", "-q")
    assert answer.code == 2 and "the training of bad diverged" in " ".join(answer.err.split())
    assert (Path.cwd() / "made" / "good" / "training.svg").is_file()
    assert not (Path.cwd() / "made" / "bad").exists()


@pytest.mark.stress
def test_a_sweep_on_ray_gives_saes_with_their_command(
    workbench: Any, models: tuple[str, str], tmp_path: Path, text: str
) -> None:
    pytest.importorskip("ray")
    config = _recipe(tmp_path / "t.yaml", model=models[0], data={"corpus": text})
    flags = ("--sweep", "seed=0,1", "--engine", "ray", "--address", "local", "--saes-per-pass", "1", "--device", "auto")
    answer = workbench("sae", "train", config, *flags, "--out", "made here", "--json", "-q")
    assert answer.code == 0, answer.err
    assert set(answer.json["saes"]) == {"sae-seed0", "sae-seed1"}
    for one in answer.json["saes"].values():
        folder = Path(one["folder"])
        assert folder.is_relative_to(Path.cwd() / "made here") and (folder / "training.svg").is_file()
        assert "--engine ray --saes-per-pass 1" in one["card"]["command"]
    again = workbench("sae", "train", config, "--sweep", "seed=0,1", "--out", "made here", "--json", "-q")
    assert again.code == 0, again.err
    assert set(again.json["saes"]) == {"sae-seed0", "sae-seed1"}
