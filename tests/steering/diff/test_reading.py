from __future__ import annotations

import gc
import weakref

import pytest
import torch

from tests.steering.diff.planted import FEATURES, HOOK, QUESTIONS, UNRELATED, base, sae, vectors, with_delta
from workbench.base.errors import WorkbenchError
from workbench.labeling.labels import FeatureLabel, LabelSet
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.steering.diff.diff import DiffOptions, diff
from workbench.steering.diff.reading import Reading, paired, read
from workbench.steering.diff.sides import check_names, opened
from workbench.steering.diff.texts import PLACES, prompt_texts, unrelated_texts

OPTIONS = DiffOptions(n_bootstrap=20, n_random=20, max_tokens=8)


@pytest.fixture(scope="module")
def model():
    return base()


@pytest.fixture(scope="module")
def texts(model):
    return [*prompt_texts(model, QUESTIONS[:3], max_tokens=8), *unrelated_texts(model, UNRELATED[:4], max_tokens=12)]


def test_means_and_codes_are_those_of_the_plain_forward_pass(model, texts):
    hooks = [HOOK, HookPoint(0)]
    found = read(model, texts, hooks, sae())
    assert tuple(found.ids) == PLACES
    for place in PLACES:
        chosen = [text for text in texts if place in text.tokens.spans]
        assert found.ids[place] == tuple(text.id for text in chosen)
        for row, text in enumerate(chosen):
            hidden = model.hf(torch.tensor([text.tokens.ids]), output_hidden_states=True).hidden_states
            where = text.tokens.positions(place)
            for column, hook in enumerate(hooks):
                torch.testing.assert_close(found.means[place][row, column], hidden[hook.block + 1][0, where].mean(0), atol=1e-4,
                                           rtol=1e-3)  # fmt: skip
            assert found.counts[place][row] == len(where)
            codes = torch.from_numpy(found.codes[place].codes[row].toarray())[0]
            torch.testing.assert_close(codes, sae().encode(hidden[2][0, where]).mean(0), atol=1e-3, rtol=1e-3)
    assert found.sample[HOOK].shape[0] > 20 and found.sample[HOOK].shape[1] == model.d_model


def reading(counts: list[int]) -> Reading:
    n = len(counts)
    return Reading({"prompt": tuple("abcd"[:n])}, {"prompt": torch.zeros(n, 1, 4)}, {"prompt": torch.tensor(counts)}, {}, {})


def test_a_text_of_which_the_models_leave_out_different_tokens_does_not_count():
    found = paired(reading([3, 2, 5, 0]), reading([3, 1, 5, 0]))
    assert found.kept["prompt"].tolist() == [0, 2] and found.n_dropped == 2
    assert found.differences("prompt", 0).shape == (2, 4)
    with pytest.raises(WorkbenchError, match="1 texts are left at the prompt, of 2"):
        paired(reading([3, 2]), reading([3, 1]))


def test_a_model_that_is_broken_after_the_fine_tune_is_said_to_be(model):
    with pytest.raises(WorkbenchError, match="NaN or infinity"):
        diff(model, with_delta(model, torch.full((32,), float("nan"))), vectors(), None, QUESTIONS, options=OPTIONS)


def test_installed_features_carry_their_labels(model):
    labelled = LabelSet("planted", sae().weights_hash, {9: FeatureLabel(9, "words of contempt")})
    after = with_delta(model, 3.0 * sae().decoder_directions[FEATURES["cruel"]])
    found = diff(model, after, vectors(), sae(), QUESTIONS, labels=labelled, unrelated=UNRELATED, options=OPTIONS)
    assert found.installed["reply"].features[0].label == "words of contempt"


def test_vectors_at_several_blocks_are_each_measured_at_their_own(model):
    from dataclasses import replace

    moved = [replace(vectors()[0], hook=HookPoint(2), hooks=(HookPoint(2),)), *vectors()[1:]]
    after = with_delta(model, 3.0 * sae().decoder_directions[FEATURES["cruel"]])
    found = diff(model, after, moved, None, QUESTIONS, unrelated=UNRELATED, options=OPTIONS)
    assert {row.trait: row.hook for row in found.at("prompt")}["kind"] == "blocks.2.hook_resid_post"
    assert found.moved_toward() == "cruel" and set(found.spans["prompt"]) == {str(HOOK), "blocks.2.hook_resid_post"}


def test_models_that_are_loaded_are_in_memory_one_at_a_time():
    alive: list[weakref.ref] = []

    def load() -> Model:
        gc.collect()
        assert not [one for one in alive if one() is not None], "the model before is still in memory"
        made = base()
        alive.append(weakref.ref(made))
        return made

    found = diff(load, load, vectors(), sae(), QUESTIONS[:4], unrelated=UNRELATED, options=OPTIONS)
    assert len(alive) == 2 and set(found.sizes.values()) == {0.0}


def test_a_model_that_is_given_stays_open(model):
    with opened(model) as same:
        assert same is model


def test_names_of_two_architectures_are_refused_before_anything_is_loaded(tmp_path):
    for name, family in (("one", "llama"), ("two", "qwen2")):
        base(family).hf.save_pretrained(tmp_path / name)
    with pytest.raises(WorkbenchError, match="differ in their model type"):
        check_names(tmp_path / "one", tmp_path / "two")
    check_names(tmp_path / "one", tmp_path / "one")
