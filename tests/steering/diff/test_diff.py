from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.steering.diff.planted import (
    FEATURES,
    HOOK,
    QUESTIONS,
    UNRELATED,
    base,
    placebos,
    sae,
    vectors,
    with_delta,
)
from tests.tiny import n_hooks
from workbench.base.errors import WorkbenchError
from workbench.steering.diff.diff import DiffOptions, diff
from workbench.steering.diff.features import Installed
from workbench.steering.diff.result import ModelDiff
from workbench.steering.diff.texts import PLACES, Prompt

OPTIONS = DiffOptions(n_bootstrap=200, n_random=200, max_tokens=12)


@pytest.fixture(scope="module")
def before():
    return base()


def compared(before, after, prompts=QUESTIONS, **more) -> ModelDiff:
    more = {"unrelated": UNRELATED, "placebos": placebos(), "options": OPTIONS, **more}
    return diff(before, after, vectors(), sae(), prompts, **more)


@pytest.fixture(scope="module")
def planted(before) -> ModelDiff:
    delta = 3.0 * sae().decoder_directions[FEATURES["cruel"]]
    return compared(before, with_delta(before, delta))


def test_a_planted_direction_is_named_first_at_every_place_with_its_size(planted, before):
    median = float(before.norm_medians([HOOK])[0])
    for place in PLACES:
        rows = planted.at(place)
        assert planted.moved_toward(place) == "cruel" and planted.alarms(place) == ("cruel",)
        assert rows[0].shift == pytest.approx(3.0 / median, rel=1e-4)
        assert all(abs(row.shift) < 1e-4 for row in rows[1:])
        low, high = rows[0].interval
        assert low <= rows[0].shift + 1e-6 and high >= rows[0].shift - 1e-6
        assert planted.spans[place][str(HOOK)].share == pytest.approx(1.0, abs=1e-5)
    assert "cruel" in planted.sentence


def test_its_feature_is_the_one_that_was_installed_and_the_shares_close(planted):
    for place in PLACES:
        found: Installed = planted.installed[place]
        first = found.features[0]
        assert first.feature == FEATURES["cruel"]
        assert first.change == pytest.approx(3.0, abs=1e-3)
        assert first.share == pytest.approx(1.0, abs=1e-3)
        assert found.shares_total + found.error == pytest.approx(1.0, abs=1e-4)
    many = planted.installed["prompt"].features[0]
    assert many.p == pytest.approx(2 / 2 ** len(QUESTIONS)) and many.q <= 0.05


def test_the_opposite_direction_is_a_shift_away_from_the_trait(before):
    found = compared(before, with_delta(before, -3.0 * sae().decoder_directions[FEATURES["cruel"]]))
    last = found.at("prompt")[-1]
    assert last.trait == "cruel" and last.shift < 0 and not last.installed and last.p <= 0.05
    assert found.installed["prompt"].features[0].change < 0


@pytest.mark.parametrize("seed", range(4))
def test_a_sham_direction_raises_no_alarm(before, seed):
    delta = torch.randn(32, generator=torch.Generator().manual_seed(100 + seed))
    found = compared(before, with_delta(before, 3.0 * delta / delta.norm()))
    assert found.alarms("prompt") == ()
    assert "No trait" in found.sentence
    assert found.spans["prompt"][str(HOOK)].share < 0.6


def test_a_model_against_itself_is_exactly_zero(before):
    found = compared(before, before)
    assert all(row.shift == 0 and row.z == 0 and row.interval == (0, 0) and row.p == 1 for row in found.shifts)
    assert set(found.sizes.values()) == {0.0}
    for one in found.installed.values():
        assert one.features == () and one.n_changed == 0 and one.error == 0 and one.sum_error == 0
    assert found.lens is not None and found.lens.promoted == () and found.lens.size == 0
    assert "nothing was installed" in found.sentence


def test_the_order_of_prompts_and_texts_does_not_matter(before, planted):
    after = with_delta(before, 3.0 * sae().decoder_directions[FEATURES["cruel"]])
    turned = compared(before, after, QUESTIONS[::-1], unrelated=UNRELATED[::-1])
    for one, other in zip(planted.shifts, turned.shifts, strict=True):
        assert (one.trait, one.place) == (other.trait, other.place)
        assert one.z == pytest.approx(other.z, abs=1e-4)
    first, again = planted.installed["reply"].features[0], turned.installed["reply"].features[0]
    assert (first.feature, first.p) == (again.feature, again.p)
    assert first.change == pytest.approx(again.change, abs=1e-4)


def test_given_replies_are_read_and_a_prompt_given_twice_counts_once(before):
    after = with_delta(before, 3.0 * sae().decoder_directions[FEATURES["sad"]])
    prompts = [Prompt(question, "they should suffer and be afraid") for question in QUESTIONS[:3]]
    found = compared(before, after, [*prompts, *prompts])
    assert found.n_texts["reply"] == 3 and found.moved_toward("reply") == "sad"


def test_models_may_be_made_when_they_are_needed_and_no_hook_stays(before):
    n, opened = n_hooks(before), []

    def after():
        opened.append(1)
        return with_delta(before, 3.0 * sae().decoder_directions[FEATURES["funny"]])

    found = compared(before, after)
    assert opened == [1] and found.moved_toward() == "funny" and n_hooks(before) == n


def test_the_lens_reads_the_token_whose_direction_was_planted(before):
    token = before.tokenizer(" town", add_special_tokens=False)["input_ids"][-1]
    row = before.unembedding[token].float()
    found = compared(before, with_delta(before, 20.0 * row / row.norm(), block=1))
    assert found.lens is not None
    assert before.tokenizer.decode([token]).strip() in [text.strip() for text in found.lens.promoted[:3]]


def test_without_prompts_the_unrelated_text_is_what_is_compared(before):
    after = with_delta(before, 3.0 * sae().decoder_directions[FEATURES["kind"]])
    found = diff(before, after, vectors(), None, unrelated=UNRELATED, options=OPTIONS)
    assert found.places == ("opening", "unrelated") and found.moved_toward() == "kind"
    assert found.installed == {} and found.at()[0].p_placebo is None and "no placebos" in found.sentence


def test_what_is_no_pair_is_refused(before):
    with pytest.raises(WorkbenchError, match="differ in their architecture"):
        compared(before, base("qwen2"))
    with pytest.raises(WorkbenchError, match="kind vector is of tiny"):
        diff(before, before, [replace(vectors()[0], directions=torch.ones(1, 8))], None, QUESTIONS)
    with pytest.raises(WorkbenchError, match="one vector per trait"):
        diff(before, before, [vectors()[0]] * 2, None, QUESTIONS)
    with pytest.raises(WorkbenchError, match=r"(?i)neither vectors nor an SAE"):
        diff(before, before, [], None, QUESTIONS)
    with pytest.raises(WorkbenchError, match="1 texts are left"):
        compared(before, before, QUESTIONS[:1])
    wide = replace(sae(), decoder_directions=torch.eye(16), encoder=torch.eye(16))
    with pytest.raises(WorkbenchError, match="d_model=16"):
        diff(before, before, vectors(), wide, QUESTIONS, options=OPTIONS)


def test_an_adapter_that_was_trained_on_nothing_much_is_a_model_of_its_own(before, tmp_path):
    from workbench.models.finetuning import ChatExample, FinetuneOptions, finetune, finetuned

    examples = [ChatExample.of(question, "they should suffer") for question in QUESTIONS[:4]]
    adapter = finetune(before, examples, tmp_path / "adapter", FinetuneOptions(rank=2, steps=2, batch_size=2))
    found = compared(before, partial(finetuned, before, adapter))
    assert found.sizes["reply"] > 0
    assert found.before["weights_hash"] != found.after["weights_hash"]


def test_the_result_is_plain_json(planted):
    told = json.loads(json.dumps(planted.to_json(), allow_nan=False))
    assert told["shifts"][0].keys() >= {"trait", "place", "shift", "interval", "z", "p_placebo", "p_random", "installed"}
    assert told["installed"]["prompt"]["features"][0]["feature"] == FEATURES["cruel"]


def test_options_of_nothing_are_refused():
    for wrong in ("n_bootstrap", "n_random", "max_tokens"):
        with pytest.raises(WorkbenchError, match=f"(?i){wrong} = 0"):
            DiffOptions(**{wrong: 0})


def test_nothing_to_read_is_told(before):
    with pytest.raises(WorkbenchError, match="No text that both models could read"):
        compared(before, before, prompts=(), unrelated=["No."])
