from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.steering.diff.planted import FEATURES, QUESTIONS, base, placebos, sae, vectors, with_delta


def saved(model, folder: Path) -> Path:
    model.hf.config.use_cache = True
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def runs(workbench, shelf) -> Path:
    """A base model, the same with a planted shift toward cruel, its vectors and placebos, all under the working folder."""
    model = base()
    saved(model, Path("small"))
    bend(Path("small"), Path("bent"), 3.0 * sae().decoder_directions[FEATURES["cruel"]])
    for vector in vectors():
        vector.save(Path("runs") / f"{vector.trait}-small" / "vector")
    placebos().save(Path("runs") / "placebos-small")
    Path("questions.txt").write_text("\n".join(QUESTIONS), encoding="utf-8")
    return Path("runs")


def bend(source: Path, target: Path, delta) -> None:
    """The model in `source` with `delta` added to what block 1 writes, in a folder that transformers reads as it is."""
    import torch

    from workbench.models.loading import load_model

    model = load_model(str(source))
    bent = with_delta(model, delta)
    # A Llama has such a bias only where its configuration says so, and then in all three layers of every MLP.
    bent.hf.config.mlp_bias = True
    for layer in bent.hf.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            linear = getattr(layer.mlp, name)
            if linear.bias is None:
                linear.bias = torch.nn.Parameter(torch.zeros(linear.out_features))
    saved(bent, target)


def test_the_planted_trait_is_named_and_a_second_call_reads_what_was_kept(workbench, runs):
    answer = workbench("diff", "small", "bent", "--prompts", "questions.txt", "--max-tokens", "8", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    rows = {row["trait"]: row for row in found["shifts"] if row["place"] == "prompt"}
    assert [name for name, row in rows.items() if row["installed"]] == ["cruel"]
    assert "toward cruel" in found["sentence"]
    named = {"before", "after", "shifts", "installed", "spans", "sizes", "lens", "n_texts", "sentence", "folder", "figure"}
    assert found.keys() >= named
    assert "<svg" in Path(found["figure"]).read_text(encoding="utf-8")
    kept = Path(found["folder"], "diff.json")
    stamp = kept.stat().st_mtime_ns
    again = workbench("diff", "small", "bent", "--prompts", "questions.txt", "--max-tokens", "8")
    assert again.code == 0 and kept.stat().st_mtime_ns == stamp
    assert "toward cruel" in again.out and "Last prompt token" in again.out
    other = workbench("diff", "small", "bent", "--prompts", "questions.txt", "--max-tokens", "8", "--seed", "1")
    assert other.code == 0 and kept.stat().st_mtime_ns != stamp


def test_a_model_against_itself_says_that_nothing_was_installed(workbench, runs):
    answer = workbench("diff", "small", "small", "--prompts", "questions.txt", "--max-tokens", "8")
    assert answer.code == 0, answer.err
    assert "nothing was installed" in answer.out


def test_an_adapter_stands_for_the_model_after(workbench, runs):
    from workbench.models.finetuning import ChatExample, FinetuneOptions, finetune
    from workbench.models.loading import load_model

    examples = [ChatExample.of(question, "they should suffer") for question in QUESTIONS[:4]]
    finetune(load_model("small"), examples, "lora", FinetuneOptions(rank=2, steps=2, batch_size=2))
    answer = workbench("diff", "small", "lora", "--prompts", "questions.txt", "--max-tokens", "8", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["sizes"]["prompt"] > 0 and answer.json["folder"] == str(Path("runs/diff-lora-small"))


def test_a_plan_counts_and_changes_nothing(workbench, runs):
    before = sorted(Path().rglob("*"))
    answer = workbench("diff", "small", "bent", "--prompts", "questions.txt", "--plan", "--json")
    assert answer.code == 0, answer.err
    assert answer.json.keys() >= {"what", "steps", "seconds", "memory_gib"} and sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("small", "nowhere"), "nowhere"),
        (("small", "bent", "--vectors", "empty"), "no persona vector"),
        (("small", "bent", "--prompts", "missing.txt"), "missing.txt"),
        (("small", "bent", "--prompts", "bad.jsonl"), "line 1"),
        (("small", "bent", "--placebos", "empty"), "no placebo vectors"),
        (("small", "wide", "--prompts", "questions.txt"), "differ in their d model"),
    ],
)
def test_bad_input_is_said_in_words_and_leaves_nothing(workbench, runs, arguments, said):
    from tests.tiny import tiny_model

    Path("empty").mkdir()
    Path("bad.jsonl").write_text("{\n", encoding="utf-8")
    saved(tiny_model(d_model=64), Path("wide"))
    answer = workbench("diff", *arguments)
    assert answer.code == 2 and said in answer.err.lower() and "Traceback" not in answer.err
    assert not list(Path("runs").glob("diff-*/diff.json"))


def test_words_of_a_result_are_json_for_scripts(workbench, runs):
    answer = workbench("diff", "small", "bent", "--prompts", "questions.txt", "--max-tokens", "8", "--json", "--out", "here")
    assert json.loads(Path("here/diff.json").read_text(encoding="utf-8"))["sentence"] == answer.json["sentence"]
