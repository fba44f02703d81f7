"""Traits of persona_vectors: imported, refused, exported, and run through to a vector without a neutral arm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.sampling import Sampling
from workbench.personas import exchange, extraction
from workbench.personas.exchange import export_trait, import_trait, left_out
from workbench.personas.extraction import extract
from workbench.personas.rollouts import RolloutDesign
from workbench.personas.trait_files import write_trait
from workbench.personas.traits import SPLITS, list_traits, load_trait
from workbench.personas.vectors import PersonaVector

DATA = Path(__file__).parent / "formats_data"
EXTRACT, EVAL = DATA / "pedantic_extract.json", DATA / "pedantic_eval.json"


def counts(trait) -> list[int]:
    return [len(trait.questions_of(split)) for split in SPLITS]


def document(file: Path = EXTRACT) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def written(folder: Path, value, name: str = "pedantic.json") -> Path:
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def refusal(folder: Path, file: Path, **options) -> str:
    with pytest.raises(WorkbenchError) as caught:
        import_trait(file, out=folder / "traits", **options)
    assert caught.value.found and caught.value.expected and caught.value.remedy
    assert not (folder / "traits").exists()
    return str(caught.value)


def test_two_files_become_a_trait_with_every_question_in_its_role(tmp_path):
    done = import_trait(EXTRACT, evaluation=EVAL, out=tmp_path)
    trait = load_trait(tmp_path / "pedantic")
    assert done.folder == tmp_path / "pedantic" and done.trait == trait
    assert (trait.name, trait.adjective, trait.opposite) == ("pedantic", "pedantic", "helpful")
    assert counts(trait) == [20, 10, 10] and trait.arms == ("positive", "negative")
    assert [q.text for q in trait.questions_of("extraction")] == document()["questions"]
    held_out = {question.text for question in trait.questions_of("verification", "sealed")}
    assert held_out == set(document(EVAL)["questions"])
    pair = document()["instruction"][0]
    first = trait.instructions[0]
    assert (first.positive, first.neutral, first.negative) == (pair["pos"], None, pair["neg"])
    assert trait.system_prompt(first, "positive") == f"You are a pedantic assistant. {pair['pos']}"
    assert trait.system_prompt(first, "negative") == f"You are a helpful assistant. {pair['neg']}"


def test_one_file_is_divided_so_that_every_question_is_used_once(tmp_path):
    done = import_trait(EXTRACT, out=tmp_path, name="fussy", adjective="fussy", opposite="easy-going")
    assert counts(done.trait) == [10, 5, 5] and "10 extraction, 5 verification, 5 sealed" in " ".join(
        done.notes
    )
    assert sorted(q.text for q in done.trait.questions) == sorted(document()["questions"])
    assert (done.trait.name, done.trait.adjective, done.trait.opposite) == ("fussy", "fussy", "easy-going")


def test_the_evaluation_prompt_is_read_as_the_template_that_it_is(tmp_path):
    trait = import_trait(EXTRACT, out=tmp_path).trait
    filled = document()["eval_prompt"].format(question="Q?", answer="A.")
    assert trait.rubric.replace("{question}", "Q?").replace("{answer}", "A.") == filled
    assert '{"score": 80}' in trait.rubric


def test_import_of_export_keeps_questions_instructions_and_rubric(tmp_path):
    for name in list_traits():
        trait = load_trait(name)
        first, second = export_trait(trait, tmp_path)
        words = {"adjective": trait.adjective, "opposite": trait.opposite}
        back = import_trait(first, evaluation=second, out=tmp_path / "back", **words).trait
        assert back.questions == trait.questions and back.rubric == trait.rubric
        assert [(t.positive, t.negative) for t in back.instructions] == [
            (t.positive, t.negative) for t in trait.instructions
        ]


def test_export_of_import_is_the_same_pair_of_files(tmp_path):
    trait = import_trait(EXTRACT, evaluation=EVAL, out=tmp_path).trait
    assert [document(file) for file in export_trait(trait, tmp_path)] == [document(EXTRACT), document(EVAL)]
    assert left_out(trait) == [] and "taxonomy" in left_out(load_trait("evil"))
    with pytest.raises(WorkbenchError, match="exists already"):
        export_trait(trait, tmp_path)


def test_a_written_trait_reads_back_whole(tmp_path):
    for name in list_traits():
        trait = load_trait(name)
        assert load_trait(write_trait(trait, tmp_path)) == trait


SPOILED = {
    "instruction": [("instruction", None, "'instruction'"), ("instruction", {"pos": "a"}, "dict"),
                    ("instruction", ["one", "two"], "instruction[0]"), ("instruction", [{"pos": "a", "neg": "b"}], "1 entries"),
                    ("instruction", [{"pos": "a"}, {"pos": "b"}], "'neg'"),
                    ("instruction", [{"pos": "a", "neg": "b"}, {"pos": "c", "neg": " A "}], "repeats"),
                    ("instruction", [{"pos": 3, "neg": "b"}, {"pos": "c", "neg": "d"}], "int")],
    "questions": [("questions", None, "'questions'"), ("questions", "Why?", "str"), ("questions", ["Why?"] * 20, "repeats"),
                  ("questions", [{"id": 1}] * 20, "questions[0]"),
                  ("questions", [f"Why {i}?" for i in range(15)], "15 questions"),
                  ("questions", [*map(str, range(19)), ""], "questions[19]"),
                  ("questions", ["\ud800", *map(str, range(19))], "half")],
    "eval_prompt": [("eval_prompt", None, "'eval_prompt'"), ("eval_prompt", "Grade {question}.", "{answer}"),
                    ("eval_prompt", "Grade {question} {answer} {trait}.", "'trait'"),
                    ("eval_prompt", "Grade {question} {answer} }.", "template"), ("eval_prompt", ["x"], "list")],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value", "said"), [case for cases in SPOILED.values() for case in cases])
def test_a_malformed_file_is_refused_and_nothing_left(tmp_path, key, value, said):
    assert said in refusal(tmp_path, written(tmp_path, {**document(), key: value}))
    if value is None:
        whole = document()
        whole.pop(key)
        assert said in refusal(tmp_path, written(tmp_path, whole))


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1, 2]", "list"), ("{", "not valid JSON"), ("", "not valid JSON"), ("null", "NoneType")],
)
def test_what_is_no_trait_at_all_is_refused(tmp_path, text, said):
    assert said in refusal(tmp_path, written(tmp_path, text))
    assert "no such file" in refusal(tmp_path, tmp_path / "missing.json")


def test_a_question_in_both_files_is_refused(tmp_path):
    both = {**document(EVAL), "questions": [document()["questions"][3].upper(), "Why?", "How?", "When?"]}
    assert "repeats" in refusal(tmp_path, EXTRACT, evaluation=written(tmp_path, both))
    few = {**document(EVAL), "questions": ["Why?", "How?", "When?"]}
    assert "3 questions" in refusal(tmp_path, EXTRACT, evaluation=written(tmp_path, few))


def test_a_bad_name_and_a_name_in_use_are_refused(tmp_path):
    assert "cannot name a folder" in refusal(tmp_path, EXTRACT, name="../evil")
    assert "adjective" in refusal(tmp_path, EXTRACT, adjective=" ")
    import_trait(EXTRACT, out=tmp_path)
    before = (tmp_path / "pedantic" / "trait.yaml").read_bytes()
    with pytest.raises(WorkbenchError, match="exists already"):
        import_trait(EXTRACT, evaluation=EVAL, out=tmp_path)
    assert (tmp_path / "pedantic" / "trait.yaml").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pedantic"]


def test_other_instructions_in_the_second_file_and_a_name_in_use_are_told(tmp_path):
    other = {**document(EVAL), "eval_prompt": "Grade {question} and {answer}."}
    done = import_trait(EXTRACT, evaluation=written(tmp_path, other), name="evil", out=tmp_path / "traits")
    assert any("another eval_prompt" in note for note in done.notes)
    assert any("another trait named evil" in note for note in done.notes)


def test_the_least_number_of_questions_is_what_a_vector_needs():
    assert exchange.MIN_EXTRACTION == extraction.MIN_QUESTIONS


@pytest.mark.parametrize("evaluation", [None, EVAL], ids=["20 questions", "40 questions"])
def test_an_imported_trait_runs_through_to_a_vector_without_a_neutral_arm(tmp_path, evaluation):
    folder = import_trait(EXTRACT, evaluation=evaluation, out=tmp_path).folder
    design = RolloutDesign(sampling=Sampling(max_new_tokens=3), n_instructions=2, batch_size=64)
    vector = extract(
        folder, tiny_model(), judge="none", design=design, out=tmp_path / "run", n_bootstrap=5, n_random=5
    )
    vector.save(tmp_path / "run" / "vector")
    read = PersonaVector.load(tmp_path / "run" / "vector")
    assert bool(torch.isfinite(read.directions).all()) and bool(read.directions.any())
    assert read.up is None and read.down is None and set(read.rows["arm"]) == {"positive", "negative"}
    n_extraction, n_evaluation = (10, 10) if evaluation is None else (20, 20)
    assert len(read.rows) == (n_extraction + n_evaluation) * 2 * 2
    assert read.evidence["auc_stripped"] is not None and "neutral" not in read.evidence["kept_counts"]
