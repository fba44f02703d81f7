"""Rollouts: complete, each once, and the same whether or not the run was interrupted."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.models.generation import Sampling
from workbench.models.hookpoints import HookPoint
from workbench.personas import rollouts as module
from workbench.personas.reencoding import recapture_tokens, reencode_without_system
from workbench.personas.rollouts import RolloutDesign, collect_rollouts, plan_batches, plan_rows
from workbench.personas.traits import Question, Trait, load_trait

DESIGN = RolloutDesign(
    sampling=Sampling(max_new_tokens=6), n_extraction=3, n_evaluation=2, n_instructions=2, batch_size=4
)
HOOKS = (HookPoint(0), HookPoint(1), HookPoint(2))
TOKENS = (HookPoint(1),)


@pytest.fixture(scope="module")
def evil() -> Trait:
    return load_trait("evil")


@pytest.fixture(scope="module")
def collected(evil, tiny_model, tmp_path_factory):
    return collect(evil, tiny_model, tmp_path_factory.mktemp("whole"))


def collect(trait, model, folder, **options):
    return collect_rollouts(
        trait, model, folder, **{"design": DESIGN, "hooks": HOOKS, "token_hooks": TOKENS, **options}
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("part-*"))}


def test_the_design_is_filled_arm_by_arm(collected):
    frame = collected.frame()
    counts = Counter(zip(frame["split"], frame["arm"], strict=True))
    assert counts == {
        ("extraction", "positive"): 6, ("extraction", "neutral"): 6, ("extraction", "negative"): 6,
        ("verification", "positive"): 2, ("verification", "negative"): 2,
        ("sealed", "positive"): 2, ("sealed", "negative"): 2,
    }  # fmt: skip
    assert len(set(collected.ids)) == len(collected) == 26
    assert (frame["n_tokens"] == frame["response_ids"].map(len)).all() and (frame["n_tokens"] <= 6).all()


def test_the_full_design_of_evil_has_the_rows_of_the_paper_with_a_neutral_arm(evil, tiny_model):
    rows = plan_rows(evil, tiny_model, design=RolloutDesign(), seed=0)
    assert len(rows) == 20 * 5 * 3 + 20 * 5 * 2


def test_token_activations_average_to_the_means(collected):
    means = dict(zip(collected.ids, collected.means(TOKENS)[:, 0], strict=True))
    rows = dict(collected.tokens(TOKENS[0]))
    extraction = collected.frame().query("split == 'extraction'")
    assert set(rows) == set(extraction["id"])  # tokens of the rows that make the vector, and only of those
    lengths = dict(zip(extraction["id"], extraction["n_tokens"] - extraction["n_sinks"], strict=True))
    for row_id, tokens in rows.items():
        assert len(tokens) == lengths[row_id]
        if len(tokens):
            assert torch.allclose(tokens.mean(dim=0), means[row_id], atol=1e-5)


@pytest.mark.parametrize("n_before", [1, 4])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    evil, tiny_model, collected, tmp_path, monkeypatch, n_before
):
    real, calls = module.generate, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) > n_before:
            raise KeyboardInterrupt
        yield from real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(evil, tiny_model, tmp_path)
    (tmp_path / "activations" / f"part-{n_before:05d}.safetensors").write_bytes(b"half written")
    resumed = collect(evil, tiny_model, tmp_path)
    assert resumed.table.equals(collected.table) and resumed.hash == collected.hash
    assert torch.equal(resumed.means(), collected.means())
    assert resumed.token_source().sha256 == collected.token_source().sha256
    assert files_of(tmp_path) == files_of(collected.folder)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
@pytest.mark.parametrize("name", ["rollouts/part-00001.parquet", "activations/part-00001.safetensors"])
def test_a_part_that_was_damaged_or_lost_is_made_again_in_its_place(evil, tiny_model, collected, tmp_path, spoil, name):
    shutil.copytree(collected.folder, tmp_path / "run")
    spoil(tmp_path / "run" / name)
    try:
        collect(evil, tiny_model, tmp_path / "run").means()
    except WorkbenchError as error:  # tensors are read when they are needed; what is said then helps
        assert "safetensors" in name and "delete it" in error.remedy
        (tmp_path / "run" / name).unlink()
        collect(evil, tiny_model, tmp_path / "run")
    assert files_of(tmp_path / "run") == files_of(collected.folder)


def test_a_finished_run_generates_nothing(evil, tiny_model, collected, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(module, "generate", never)
    assert collect(evil, tiny_model, collected.folder).table.equals(collected.table)


def test_another_seed_in_the_same_folder_adds_rows_and_disturbs_nothing(evil, tiny_model, tmp_path):
    first = collect(evil, tiny_model, tmp_path)
    before = files_of(tmp_path)
    second = collect(evil, tiny_model, tmp_path, seed=1)
    assert not set(first.ids) & set(second.ids)
    assert before.items() <= files_of(tmp_path).items()
    assert collect(evil, tiny_model, tmp_path).table.equals(first.table)


def test_more_samples_keep_the_first_ones(evil, tiny_model, tmp_path):
    one = collect(evil, tiny_model, tmp_path)
    two = collect(evil, tiny_model, tmp_path, design=dataclasses.replace(DESIGN, n_samples=2))
    assert set(one.ids) < set(two.ids) and len(two) == 2 * len(one)
    texts = dict(zip(two.ids, two.table.column("response").to_pylist(), strict=True))
    assert [texts[row_id] for row_id in one.ids] == one.table.column("response").to_pylist()


def test_a_question_written_twice_counts_once(evil, tiny_model):
    twice = dataclasses.replace(
        evil, questions=(*evil.questions, Question("again", evil.questions[0].text, "extraction"))
    )
    rows = [plan_rows(trait, tiny_model, design=RolloutDesign(), seed=0) for trait in (evil, twice)]
    assert rows[0] == rows[1]


def test_a_question_that_moves_to_another_split_takes_its_rows_with_it(evil, tiny_model, tmp_path):
    design = dataclasses.replace(DESIGN, splits=("evaluation",))
    first = collect(evil, tiny_model, tmp_path, design=design)
    moved = dataclasses.replace(
        evil, questions=tuple(dataclasses.replace(q, split="sealed") if q.split == "verification" else q for q in evil.questions)
    )  # fmt: skip
    ids = {
        row.id
        for row in plan_rows(moved, tiny_model, design=dataclasses.replace(design, n_evaluation=None), seed=0)
    }
    assert set(first.ids) <= ids


def test_batches_never_mix_samples_or_extraction_and_evaluation(evil, tiny_model):
    rows = plan_rows(evil, tiny_model, design=dataclasses.replace(DESIGN, n_samples=2), seed=0)
    where = {row.id: (row.sample, row.split == "extraction") for row in rows}
    batches = plan_batches(rows, {row.id: len(row.question) for row in rows}, 4)
    assert all(len({where[row_id] for row_id in batch}) == 1 and len(batch) <= 4 for batch in batches)
    assert sorted(row_id for batch in batches for row_id in batch) == sorted(where)


def test_batches_do_not_depend_on_the_order_of_the_rows(evil, tiny_model):
    rows = plan_rows(evil, tiny_model, design=DESIGN, seed=0)
    lengths = {row.id: len(row.question) for row in rows}
    assert plan_batches(rows, lengths, 4) == plan_batches(rows[::-1], lengths, 4)


def test_without_the_system_prompt_the_same_tokens_have_other_activations(tiny_model, collected):
    ids = collected.ids[:5]
    stripped = reencode_without_system(tiny_model, collected.folder, collected.table, ids, HOOKS)
    assert stripped.shape == (5, 3, tiny_model.d_model)
    assert not torch.allclose(stripped, collected.means()[:5], atol=1e-3)
    again = reencode_without_system(tiny_model, collected.folder, collected.table, ids, HOOKS)
    assert torch.equal(stripped, again)


def test_reading_rollouts_again_gives_the_activations_of_the_generation(tiny_model, collected):
    stored = dict(collected.tokens(TOKENS[0]))
    frame = collected.frame().query("split == 'extraction'")
    for row_id, tokens in recapture_tokens(tiny_model, frame, TOKENS[0], batch_size=5):
        assert torch.allclose(tokens, stored[row_id], atol=1e-4)


def test_a_design_without_both_arms_or_with_a_count_of_zero_is_refused():
    with pytest.raises(WorkbenchError, match="arm"):
        RolloutDesign(arms=("positive", "neutral"))
    with pytest.raises(WorkbenchError, match="n_samples = 0"):
        RolloutDesign(n_samples=0)


@pytest.mark.parametrize("name", ["n_samples", "batch_size", "n_extraction", "n_evaluation", "n_instructions"])
@pytest.mark.parametrize("count", [0, -3, 2**31 - 1])
def test_a_count_that_no_design_can_mean_is_named(name: str, count: int) -> None:
    with pytest.raises(WorkbenchError, match=name) as caught:
        RolloutDesign(**{name: count})
    assert "from 1 to 1,000,000" in caught.value.expected


def test_a_part_that_memory_is_too_short_for_is_kept_and_told(collected, tmp_path, monkeypatch):
    import pyarrow

    from workbench.base import tables
    from workbench.personas.parts import PartStore

    parts = PartStore(Path(shutil.copytree(collected.folder, tmp_path / "run")))
    before = files_of(parts.folder)
    assert before and len(parts.headers()) > 1

    def full(*_, **__):
        raise pyarrow.ArrowMemoryError("malloc failed")

    with monkeypatch.context() as patched, pytest.raises(WorkbenchError, match="more memory than there is"):
        patched.setattr(tables, "bounded", full)
        parts.remove_uncommitted()
    assert files_of(parts.folder) == before
