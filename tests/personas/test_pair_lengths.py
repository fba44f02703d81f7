"""The replies of a pair are equally long in tokens; a trait whose replies are not is told so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import workbench.personas.traits
from workbench.models.at_hand import file_at_hand
from workbench.personas.pair_lengths import EACH, MEAN, length_match, length_warnings
from workbench.personas.traits import ReplyPair, load_trait

DATA = Path(workbench.personas.traits.__file__).parent / "data"
TRAITS = sorted(path.parent.name for path in DATA.glob("*/pairs.yaml"))
DEFAULT_MODEL = "smollm2-135m-instruct"


def pair(number: int, trait: str, opposite: str) -> ReplyPair:
    return ReplyPair(f"c{number}", "contrast", "Why?", trait, opposite, "select")


def tiny_tokenizer(folder: Path) -> Path:
    """A tokenizer.json that makes a token of every character but blanks and of every run of letters."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|\d"), "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize("name", TRAITS)
def test_pairs_that_ship_are_matched_in_the_tokens_of_the_default_model(name: str):
    file = file_at_hand(DEFAULT_MODEL, "tokenizer.json")
    if file is None:
        pytest.skip("the default model's tokenizer is not on this machine")
    trait = load_trait(DATA / name)
    for pairs in (trait.contrast_pairs, trait.control_pairs):
        found = length_match(pairs, file)
        assert MEAN["tokens"][0] <= found.mean <= MEAN["tokens"][1], (name, found.mean)
        assert not found.outside, (name, found.outside)
    assert length_warnings(trait, DEFAULT_MODEL) == []


@pytest.mark.parametrize("name", TRAITS)
def test_pairs_that_ship_are_matched_in_characters(name: str):
    assert length_warnings(load_trait(DATA / name), "no/such-model") == []


def test_the_pairs_of_hallucinating_do_not_give_their_sides_away_by_digits_or_names():
    pairs = load_trait(DATA / "hallucinating").contrast_pairs

    def share(side: str, shown) -> float:
        return sum(any(map(shown, getattr(pair, side).replace(" I ", " ").split()[1:])) for pair in pairs) / len(pairs)

    for shown in (lambda word: word[0].isdigit(), lambda word: word[0].isupper()):
        assert abs(share("trait", shown) - share("opposite", shown)) <= 0.2


def test_a_reply_full_of_digits_is_longer_in_tokens_than_in_words(tmp_path: Path):
    file = tiny_tokenizer(tmp_path)
    pairs = [pair(1, "12345", "about"), pair(2, "abcde", "fghij")]
    assert length_match(pairs, file).ratios == {"c1": 5.0, "c2": 1.0}
    assert length_match(pairs, None).ratios == {"c1": 1.0, "c2": 1.0}
    evil = load_trait("evil")
    spoilt = replace(evil, contrast_pairs=tuple(pairs), control_pairs=())
    first, second = length_warnings(spoilt, str(tmp_path))
    assert "3.00 times the tokens" in first and "c1 5.00" in second and "c2" not in second
    assert length_warnings(spoilt, "no/such-model") == []


def test_matched_pairs_and_traits_without_any_get_no_warning(tmp_path: Path):
    tiny_tokenizer(tmp_path)
    evil = load_trait("evil")
    assert length_warnings(replace(evil, contrast_pairs=(), control_pairs=()), str(tmp_path)) == []
    matched = replace(evil, contrast_pairs=(pair(1, "one two", "two one"),), control_pairs=())
    assert length_warnings(matched, str(tmp_path)) == []
    assert all(low < 1 < high for ranges in (MEAN, EACH) for low, high in ranges.values())


def test_without_a_tokenizer_characters_say_that_one_side_is_longer():
    evil = load_trait("evil")
    spoilt = replace(evil, contrast_pairs=(pair(1, "a long reply that goes on and on", "No."),), control_pairs=())
    assert all("characters" in line for line in length_warnings(spoilt, "no/such-model"))
    assert len(length_warnings(spoilt, "no/such-model")) == 2


def test_a_model_that_is_not_at_hand_has_no_tokenizer_file(tmp_path: Path):
    assert file_at_hand("not a name", "tokenizer.json") is None and file_at_hand(str(tmp_path), "tokenizer.json") is None
    assert file_at_hand(str(tiny_tokenizer(tmp_path).parent), "tokenizer.json") == tmp_path / "tokenizer.json"
