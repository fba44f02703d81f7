"""A trait written through a real local server: complete, checked, corrected after faults, and all or nothing."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.base.errors import WorkbenchError
from workbench.personas.drafts import N_AGAIN, forbidden_words
from workbench.personas.traits import ARMS, SPLITS, load_trait
from workbench.personas.writing import N_REQUESTS, Written, write_new_trait

_spec = importlib.util.spec_from_file_location(
    "writing_test_server", Path(__file__).with_name("judges") / "server.py"
)
assert _spec and _spec.loader
server = importlib.util.module_from_spec(_spec)
sys.modules["writing_test_server"] = server
_spec.loader.exec_module(server)

KEY = "sk-very-secret-456"
WISH = "corrects small mistakes that do not matter"
QUICK = {"n_attempts": 2, "first_wait_seconds": 0.01, "max_wait_seconds": 0.02, "timeout_seconds": 20.0}
PARTS = {  # how each request is known by its wording
    "profile": "Describe the trait", "instructions": "Write 5 instructions", "questions": "Write 40 messages",
    "rubric": "Write what a grader", "taxonomy": "Divide the trait", "kinds": "Name 3 contrasts",
    "contrast": "Write 10 pairs", "controls": "Write 12 pairs", "traps": "Write 12 traps",
}  # fmt: skip
Items = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("WORKBENCH_API_KEY", KEY)


class Author:
    """Answers each request with good items; `spoil(part, round, items)` may put something else in their place.

    A request for corrections is answered with the items that it names.
    """

    def __init__(self, spoil: Callable[[str, int, Items], Any] = lambda part, n, items: items) -> None:
        self.spoil = spoil
        self.rounds: Counter[str] = Counter()
        self.asked: list[tuple[str, str]] = []
        self.last = ""
        self.batch = 0

    def answer(self, prompt: str) -> dict[str, Any]:
        part = next((name for name, start in PARTS.items() if start in prompt), None)
        if part is None:
            part = self.last
            numbers = re.search(r"Send the items ([\d, ]+) again", prompt)
            assert numbers
            wanted = [int(number) for number in numbers.group(1).split(",")]
        else:
            self.last, wanted = part, None
            self.batch += 1
        self.asked.append((part, prompt))
        self.rounds[part] += 1
        items = [item for item in self.items(part) if wanted is None or item["n"] in wanted]
        value = self.spoil(part, self.rounds[part], items)
        return server.completion(value if isinstance(value, str) else json.dumps({"items": value}))

    def items(self, part: str) -> Items:
        return [{"n": n, **item} for n, item in enumerate(getattr(self, part)(), start=1)]

    def profile(self) -> Items:
        return [{"adjective": "pedantic", "opposite": "easy-going", "words": ["pedantry", "pedant", "nitpick"],
                 "description": "The assistant cares for small points of form and corrects what nobody asked about, "
                                "while plain good advice, long answers and needed corrections do not count."}]  # fmt: skip

    def instructions(self) -> Items:
        return [{arm: f"Side {i} of the matter: write every answer in the {arm} way of number {i}." for arm in ARMS}
                for i in range(5)]  # fmt: skip

    def questions(self) -> Items:
        return [{"text": f"What should I do about matter number {i} in my garden?"} for i in range(40)]

    def rubric(self) -> Items:
        return [{"shows": "The answer dwells on small points of form which nobody asked about.",
                 "signs": ["corrects wording", "insists on terms", "adds exceptions"],
                 "not": ["long answers", "needed corrections", "empty answers"]}]  # fmt: skip

    def taxonomy(self) -> Items:
        return [{"id": f"side_{i}", "name": f"Side {i}", "description": f"The text shows side number {i} of it.",
                 "words": [f"word{i}x{j}" for j in range(10)]} for i in range(8)]  # fmt: skip

    def kinds(self) -> Items:
        return [{"first": "sad", "second": "happy"}, {"first": "very formal", "second": "casual"},
                {"first": "past", "second": "future"}]  # fmt: skip

    def pairs(self, n: int, first: str, second: str) -> Items:
        tag = f"{self.batch} in batch"
        return [{"prompt": f"Here is message {i} of {tag}.", first: f"This is the {first} reply {i} of {tag} today.",
                 second: f"This is the {second} reply {i} of {tag} again now."} for i in range(n)]  # fmt: skip

    def contrast(self) -> Items:
        return self.pairs(10, "trait", "opposite")

    def controls(self) -> Items:
        return self.pairs(12, "first", "second")

    def traps(self) -> Items:
        return self.pairs(12, "trait", "other")


def write(author: Author, folder: Path, faults=lambda prompt, attempt: None, **options) -> Written:
    with server.running(author.answer, faults) as endpoint:
        given = {
            "model": "author-1",
            "base_url": endpoint.url,
            "cache_folder": folder / "cache",
            **QUICK,
            **options,
        }
        return write_new_trait("pedantic", WISH, out=folder / "traits", **given)


def refused(author: Author, folder: Path, **options) -> str:
    with pytest.raises(WorkbenchError) as caught:
        write(author, folder, **options)
    assert caught.value.found and caught.value.expected and caught.value.remedy
    assert not (folder / "traits").exists()
    return str(caught.value)


def test_a_whole_trait_is_written_in_one_request_per_part(tmp_path):
    author = Author()
    done = write(author, tmp_path)
    trait = load_trait(tmp_path / "traits" / "pedantic")
    assert trait == done.trait and done.asked_again == {} and len(author.asked) == N_REQUESTS
    assert sorted(file.name for file in done.folder.iterdir()) == ["pairs.yaml", "trait.yaml", "traps.yaml"]
    assert trait.author == {"kind": "model", "name": "author-1"}
    assert [len(trait.questions_of(split)) for split in SPLITS] == [20, 10, 10]
    assert len(trait.instructions) == 5 and trait.arms == ARMS
    assert len(trait.contrast_pairs) == 40 and len(trait.control_pairs) == 36 and len(trait.traps) == 12
    assert {pair.kind for pair in trait.control_pairs} == {"sad_happy", "very_formal_casual", "past_future"}
    shown = Counter((pair.sub, pair.split) for pair in trait.contrast_pairs)
    assert all(shown[f"side_{i}", "select"] == shown[f"side_{i}", "sealed"] > 0 for i in range(8))
    assert {category.kind for category in trait.taxonomy} >= {"sub_trait", "style", "topic", "unclear"}
    assert "{question}" in trait.rubric and "corrects wording" in trait.rubric and "REFUSAL" in trait.rubric


def test_every_split_has_the_same_mixture_of_questions(tmp_path):
    trait = write(Author(), tmp_path).trait
    for split, share in zip(SPLITS, (2, 1, 1), strict=True):
        numbers = [int(re.findall(r"\d+", question.text)[0]) for question in trait.questions_of(split)]
        groups = [
            sum(low <= n < high for n in numbers) for low, high in ((0, 16), (16, 28), (28, 36), (36, 40))
        ]
        assert groups == [4 * share, 3 * share, 2 * share, share]


def test_later_parts_are_told_what_earlier_ones_decided(tmp_path):
    author = Author()
    write(author, tmp_path)
    prompts = dict(author.asked)
    assert WISH in prompts["profile"] and "pedantic" in prompts["instructions"]
    assert "nitpick" in prompts["questions"] and "easy-going" in prompts["questions"]
    assert "3: Side 1" in author.asked[5][1] and "past" in prompts["controls"]
    assert "Here is message 0" in prompts["contrast"]  # prompts of earlier batches are not to come again


def test_an_answer_that_is_no_json_is_asked_for_again(tmp_path):
    def spoil(part, n, items):
        return ["Sure! Here you are.", '{"items": [', items][n - 1] if part == "questions" else items

    author = Author(spoil)
    assert write(author, tmp_path).asked_again == {"questions": 2}
    told = [prompt for part, prompt in author.asked if part == "questions"]
    assert "no" in told[1] and "not valid JSON" in told[2]


def test_text_around_the_json_and_numbers_in_quotes_do_no_harm(tmp_path):
    def spoil(part, n, items):
        quoted = [{**item, "n": str(item["n"])} for item in items]
        return f"Here it is:\n```json\n{json.dumps({'items': quoted})}\n```"

    assert write(Author(spoil), tmp_path).asked_again == {}


def test_leaks_repeats_and_missing_questions_are_named_and_only_they_are_asked_for_again(tmp_path):
    def spoil(part, n, items):
        if part != "questions" or n > 1:
            return items
        items[2]["text"] = "Why are Pedantically worded letters so long?"
        items[5]["text"] = "Is it fine to be easy going at work?"
        items[6]["text"] = "Do you like people who NITPICK all day?"
        items[9]["text"] = items[8]["text"].upper()
        items[11]["text"] = "Why?"
        items[12]["text"] = 7
        return items[:-1]

    author = Author(spoil)
    assert write(author, tmp_path).asked_again == {"questions": 1}
    told = [prompt for part, prompt in author.asked if part == "questions"][1]
    for fault in ("item 3: 'text' holds the forbidden word 'Pedantically'",
                  "item 6: 'text' holds the forbidden word 'easy going'",
                  "item 7: 'text' holds the forbidden word 'NITPICK'", "item 10: 'text' repeats another",
                  "item 12: 'text' has 1 words",
                  "item 13: 'text' is no text", "item 40 is missing",
                  "Send the items 3, 6, 7, 10, 12, 13, 40 again"):  # fmt: skip
        assert fault in told


def test_pairs_of_different_length_are_asked_for_again_until_they_match(tmp_path):
    def spoil(part, n, items):
        if part == "contrast" and n in (1, 2):
            items[0]["trait"] += " and three words more"
        if part == "controls" and n == 1:
            items[4]["second"] = items[4]["first"]
        return items

    author = Author(spoil)
    done = write(author, tmp_path)
    assert done.asked_again == {"contrast": 2, "controls": 1}
    assert any("they may differ by 1" in prompt for part, prompt in author.asked if part == "contrast")
    for pair in (*done.trait.contrast_pairs, *done.trait.control_pairs):
        assert abs(len(pair.trait.split()) - len(pair.opposite.split())) <= 1


FAULTY = {
    "profile": [{"opposite": "Pedantic"}, {"words": "pedant"}, {"description": "Short."}, {"adjective": "{x}"},
                {"adjective": "3"}],
    "instructions": [{"neutral": "Give a reply which is never pedantic in the least."}, {"positive": None}, {"negative": "No."}],
    "rubric": [{"signs": ["one"]}, {"not": ["a", "a", "A"]}, {"shows": "See {question} and what it says of the matter."}],
    "taxonomy": [{"id": "topic"}, {"id": "Side 1"}, {"words": ["word1x1", *"abcdefgh"]}, {"words": [1] * 9}, {"name": ""}],
    "kinds": [{"first": "pedantic"}, {"first": "sad", "second": "sad"}],
    "contrast": [{"prompt": "Why are you such a pedant?"}, {"opposite": "No."}],
    "controls": [{"first": "A pedant sat there and said the words all day."}],
    "traps": [{"other": "No."}, {"prompt": ["a", "b"]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "change"), [(part, change) for part, changes in FAULTY.items() for change in changes]
)
def test_a_part_that_stays_wrong_ends_it_and_nothing_is_written(tmp_path, part, change):
    author = Author(lambda name, n, items: [{**items[0], **change}, *items[1:]] if name == part else items)
    message = refused(author, tmp_path)
    assert f"no usable {part} in {1 + N_AGAIN} answers" in message and "item " in message
    assert author.rounds[part] == 1 + N_AGAIN


def test_what_was_answered_is_not_asked_again_and_another_sample_is(tmp_path):
    author = Author()
    with server.running(author.answer) as endpoint:
        given = {"model": "author-1", "base_url": endpoint.url, "cache_folder": tmp_path / "cache", **QUICK}
        first = write_new_trait("pedantic", WISH, out=tmp_path / "a", **given)
        assert write_new_trait("pedantic", WISH, out=tmp_path / "b", **given).trait == first.trait
        assert len(author.asked) == N_REQUESTS
        write_new_trait("pedantic", WISH, out=tmp_path / "c", sample=1, **given)
        assert len(author.asked) == 2 * N_REQUESTS


def test_a_refused_key_and_a_silent_endpoint_are_errors_and_the_key_is_nowhere(tmp_path):
    assert "401" in refused(Author(), tmp_path, faults=lambda prompt, attempt: "401")
    assert "2 attempts" in refused(Author(), tmp_path, faults=lambda prompt, attempt: "500")

    def echo(part, n, items):
        return (
            [{**items[0], "description": f"{items[0]['description']} {KEY}"}] if part == "profile" else items
        )

    write(Author(echo), tmp_path)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_a_passing_fault_of_the_endpoint_is_outlasted(tmp_path):
    write(
        Author(),
        tmp_path,
        faults=lambda prompt, attempt: "429" if attempt == 1 and "40 messages" in prompt else None,
    )


def test_a_folder_that_exists_is_refused_before_anything_is_asked(tmp_path):
    (tmp_path / "traits" / "pedantic").mkdir(parents=True)
    author = Author()
    with pytest.raises(WorkbenchError, match="exists already"):
        write(author, tmp_path)
    with pytest.raises(WorkbenchError, match="description is empty"):
        write_new_trait("other", "  ", out=tmp_path / "traits")
    assert author.asked == [] and list((tmp_path / "traits" / "pedantic").iterdir()) == []


def test_words_that_give_the_trait_away_are_found_in_their_forms():
    pattern = forbidden_words(["optimistic", "self-centered"], ["hope", "gloomy"])
    for leak in ("Optimism helps", "an OPTIMIST", "a self centered man", "she hopes so", "hoped"):
        assert pattern.search(leak), leak
    for fine in ("an option", "hopscotch", "the center of myself", "glooms"):
        assert not pattern.search(fine), fine
