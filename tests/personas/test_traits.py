"""Traits: the shipped one is complete, and bad files are refused with the place and the remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workbench.base.errors import WorkbenchError
from workbench.personas.scaffold import new_trait
from workbench.personas.traits import ARMS, SPLITS, list_traits, load_trait, trait_path


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the shipped trait that a test may spoil."""
    return Path(shutil.copytree(trait_path("evil"), tmp_path / "evil"))


def edit(folder: Path, change, file: str = "trait.yaml") -> Path:
    document = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
    change(document)
    (folder / file).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(WorkbenchError) as caught:
        load_trait(folder)
    assert caught.value.found and caught.value.expected and caught.value.remedy
    return str(caught.value)


def test_the_evil_trait_has_the_counts_that_the_design_asks_for():
    evil = load_trait("evil")
    assert [len(evil.questions_of(split)) for split in SPLITS] == [20, 10, 10]
    assert len(evil.instructions) == 5
    for pairs in (evil.contrast_pairs, evil.control_pairs):
        assert len(pairs) >= 40
        assert sum(pair.split == "select" for pair in pairs) == len(pairs) / 2
    assert {pair.kind for pair in evil.control_pairs} >= {"sad_happy", "rude_polite"}
    assert {pair.sub for pair in evil.contrast_pairs} <= {category.id for category in evil.taxonomy}
    assert len(evil.traps) >= 30


def test_system_prompts_name_the_adjective_with_the_right_article():
    evil = load_trait("evil")
    first = evil.instructions[0]
    prompts = {arm: evil.system_prompt(first, arm) for arm in ARMS}
    assert prompts["positive"] == f"You are an evil assistant. {first.positive}"
    assert prompts["negative"] == f"You are a {evil.opposite} assistant. {first.negative}"
    assert prompts["neutral"] == f"You are an assistant. {first.neutral}"


def test_a_trait_is_found_by_name_folder_and_file(copied: Path):
    assert "evil" in list_traits()
    assert load_trait(copied) == load_trait(copied / "trait.yaml") == load_trait("evil")


def test_the_hash_follows_the_text(copied: Path):
    before = load_trait(copied)
    after = load_trait(edit(copied, lambda document: document["questions"]["sealed"][0].update(text="New?")))
    assert before.hash != after.hash and before.pairs_hash == after.pairs_hash


def test_a_name_too_long_for_any_folder_is_an_unknown_trait():
    with pytest.raises(WorkbenchError, match="evil"):
        trait_path("y" * 5000)


def test_an_unknown_trait_offers_the_nearest_name():
    with pytest.raises(WorkbenchError, match="evil") as caught:
        load_trait("evli")
    assert "evli" in caught.value.found


def test_a_folder_of_own_traits_is_searched(copied: Path, monkeypatch: pytest.MonkeyPatch):
    edit(copied, lambda document: document.update(name="grim")).rename(copied.parent / "grim")
    monkeypatch.setenv("WORKBENCH_TRAITS", str(copied.parent))
    assert "grim" in list_traits() and load_trait("grim").name == "grim"


@pytest.mark.parametrize(
    "name", ["adjective", "opposite", "description", "instructions", "questions", "rubric", "taxonomy"]
)
def test_a_missing_field_is_named(copied: Path, name: str):
    message = refusal(edit(copied, lambda document: document.pop(name)))
    assert name in message and "missing" in message and "trait.yaml" in message


def test_a_missing_text_is_named_with_its_place(copied: Path):
    message = refusal(edit(copied, lambda document: document["questions"]["sealed"][3].pop("text")))
    assert "questions, sealed[3]" in message and "'text'" in message


def test_a_field_written_twice_is_refused_with_its_line(copied: Path):
    file = copied / "trait.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "\nadjective: cruel\n", encoding="utf-8")
    message = refusal(copied)
    assert "adjective" in message and "line" in message


def test_a_duplicate_id_is_refused(copied: Path):
    assert "e01" in refusal(
        edit(copied, lambda document: document["questions"]["sealed"][0].update(id="e01"))
    )


def test_a_question_in_two_splits_is_refused_whatever_its_spaces(copied: Path):
    def repeat(document):
        text = document["questions"]["extraction"][0]["text"]
        document["questions"]["sealed"][0]["text"] = f"  {text.upper()} "

    assert "repeats the text" in refusal(edit(copied, repeat))


def test_a_wrong_type_and_an_unknown_choice_are_refused(copied: Path):
    assert "'shows_trait' is 'perhaps'" in refusal(
        edit(copied, lambda document: document["taxonomy"][0].update(shows_trait="perhaps"))
    )


def test_a_pair_with_an_unknown_split_lists_the_known_ones(copied: Path):
    message = refusal(
        edit(copied, lambda document: document["contrast"][0].update(split="seald"), "pairs.yaml")
    )
    assert "contrast[0]" in message and "sealed" in message


def test_a_pair_needs_a_category_of_the_taxonomy(copied: Path):
    message = refusal(
        edit(copied, lambda document: document["contrast"][0].update(sub="cruelness"), "pairs.yaml")
    )
    assert "cruelness" in message and "deliberate_cruelty" in message


def test_a_rubric_shows_the_judge_question_and_answer(copied: Path):
    assert "{answer}" in refusal(edit(copied, lambda document: document.update(rubric="Grade {question}.")))


@pytest.mark.parametrize("author", ["a", ["x"], [[]], 7])
def test_an_author_that_is_no_mapping_is_refused_in_words(copied: Path, author):
    assert "the author is" in refusal(edit(copied, lambda document: document.update(author=author)))
    assert load_trait(edit(copied, lambda document: document.pop("author"))).author == {}


def test_a_newer_schema_is_refused(copied: Path):
    assert "schema 3" in refusal(edit(copied, lambda document: document.update(schema=3))).lower()


def test_a_new_trait_asks_to_be_filled_in_and_then_loads(tmp_path: Path):
    folder = new_trait("gloomy", tmp_path)
    assert "FILL IN" in refusal(folder)
    (folder / "pairs.example.yaml").rename(folder / "pairs.yaml")
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8")
        for i in range(text.count("FILL IN")):
            text = text.replace("FILL IN", f"text {i}", 1)
        file.write_text(text, encoding="utf-8")
    trait = load_trait(folder)
    assert trait.name == "gloomy" and len(trait.questions) == 40
    assert len(trait.contrast_pairs) == len(trait.control_pairs) == 1


def test_a_new_trait_never_overwrites_and_refuses_bad_names(tmp_path: Path):
    new_trait("gloomy", tmp_path)
    with pytest.raises(WorkbenchError, match="exists already"):
        new_trait("gloomy", tmp_path)
    with pytest.raises(WorkbenchError, match="cannot name a folder"):
        new_trait("../evil", tmp_path)


def test_reading_traits_imports_nothing_heavy():
    code = (
        "import sys; from workbench.personas.traits import load_trait; load_trait('evil');"
        "print([name for name in ('torch', 'transformers', 'pandas', 'pyarrow', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_trait_of_schema_1_reads_as_the_same_trait(copied: Path):
    now = load_trait(copied)
    for name, old in (("trait.yaml", {"shows_trait": "evil"}), ("traps.yaml", {"trait": "evil", "other": "not_evil"})):
        text = (copied / name).read_text(encoding="utf-8").replace("schema: 2", "schema: 1")
        for new_key, old_key in old.items():
            text = text.replace(f"\n    {new_key}: ", f"\n    {old_key}: ")
        (copied / name).write_text(text, encoding="utf-8")
    assert "evil: true" in (copied / "trait.yaml").read_text(encoding="utf-8")
    assert load_trait(copied) == now


def test_a_trait_without_neutral_stances_has_two_arms_and_one_with_some_is_refused(copied: Path):
    whole = load_trait(copied)
    assert whole.arms == ARMS

    assert "no neutral stance" in refusal(edit(copied, lambda d: d["instructions"][2].pop("neutral")))
    two = load_trait(edit(copied, lambda d: [t.pop("neutral", None) for t in d["instructions"]]))
    assert two.arms == ("positive", "negative") and two.instructions[0].neutral is None
    with pytest.raises(WorkbenchError, match="no neutral stance"):
        two.system_prompt(two.instructions[0], "neutral")


def test_a_taxonomy_may_be_empty_when_the_file_says_so(copied: Path):
    (copied / "pairs.yaml").unlink()
    assert load_trait(edit(copied, lambda document: document.update(taxonomy=[]))).taxonomy == ()
    assert "taxonomy" in refusal(edit(copied, lambda document: document.update(taxonomy=None)))
