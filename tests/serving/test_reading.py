from __future__ import annotations

import pytest
import torch

from tests.serving.world import N_REPLIES, TRAIT
from workbench.base.errors import WorkbenchError
from workbench.labeling.tokens import special_ids
from workbench.models.prompts import tokenize_chat
from workbench.personas.neutral import NeutralScale, neutral_scale
from workbench.personas.vectors import PersonaVector
from workbench.saes.token_rows import activations_at
from workbench.serving.reading import MAX_LISTED, Persona, read_chat, read_text, read_tokens

TEXT = "You are a cruel assistant. The rivers are long and the people should be afraid."
CHAT = [{"role": "system", "content": "You are cruel."}, {"role": "user", "content": "What should I do?"},
        {"role": "assistant", "content": "They should suffer."}]  # fmt: skip


@pytest.fixture(scope="module")
def vector(world) -> PersonaVector:
    return PersonaVector.load(world.run / "vector")


@pytest.fixture(scope="module")
def persona(vector) -> Persona:
    return Persona(TRAIT, vector.hook, vector.direction, neutral_scale(vector))


def rows_of(world, ids) -> torch.Tensor:
    return activations_at(world.model, world.sae.hook, torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))[
        0
    ].float()


def test_the_scale_is_that_of_the_neutral_replies_alone(vector):
    scale = neutral_scale(vector)
    assert scale is not None and vector.tokens is not None
    unit = vector.direction / vector.direction.norm()
    arms = dict(zip(vector.rows["id"], vector.rows["arm"], strict=True))
    replies = [tokens @ unit for name, tokens in vector.tokens.rows(vector.hook) if arms[name] == "neutral"]
    assert scale.n_replies == N_REPLIES and scale.n_tokens == sum(map(len, replies))
    assert scale.token_sd == pytest.approx(float(torch.cat(replies).std()), rel=1e-5)
    assert scale.reply_mean == pytest.approx(
        float(torch.stack([reply.mean() for reply in replies]).mean()), rel=1e-4, abs=1e-6
    )
    assert scale.of_token(scale.token_mean + 2 * scale.token_sd) == pytest.approx(2)
    assert scale.of_reply(scale.reply_mean - scale.reply_sd) == pytest.approx(-1)


def test_without_stored_activations_there_is_no_scale(vector):
    bare = PersonaVector.from_direction(vector.direction, trait=TRAIT, model="tiny", hook=vector.hook)
    assert neutral_scale(bare) is None


def test_the_features_of_a_token_are_those_that_the_sae_finds_there(world, persona):
    reading = read_text(world.model, world.sae, [persona], TEXT)
    ids = world.model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    start = len(reading.tokens) - len(ids)
    rows = rows_of(world, world.model.tokenizer("a")["input_ids"][:start] + ids)
    codes = world.sae.encode(rows)
    assert "".join(reading.tokens).endswith(TEXT) and reading.roles[-1] == "plain"
    for place in range(1, len(rows)):
        listed = dict(reading.features[place])
        assert set(listed) == set(codes[place].nonzero().flatten().tolist()) and reading.n_firing[place] == len(listed)
        assert all(value == pytest.approx(float(codes[place, f]), rel=1e-4) for f, value in listed.items())
        values = [value for _, value in reading.features[place]]
        assert values == sorted(values, reverse=True) and len(values) <= MAX_LISTED
    assert any(reading.features[1:]), "nothing fires at all"


def test_what_does_not_count_has_neither_features_nor_projections(world, persona):
    reading = read_chat(world.model, world.sae, [persona], CHAT)
    special = set(special_ids(world.model.tokenizer))
    ids = tokenize_chat(world.model, CHAT).ids
    projection = reading.projections[TRAIT]
    for place, token in enumerate(ids):
        silent = place == 0 or token in special
        assert reading.counts[place] == (not silent)
        assert (projection.cosine[place] is None) == silent
        assert not (silent and reading.features[place])


def test_projections_are_cosines_and_standard_deviations_and_a_chat_is_measured_on_the_reply(world, persona):
    reading = read_chat(world.model, world.sae, [persona], CHAT)
    rows, unit = rows_of(world, tokenize_chat(world.model, CHAT).ids), persona.direction / persona.direction.norm()
    found, scale = reading.projections[TRAIT], persona.neutral
    assert scale is not None and found.deviations is not None and found.mean_deviations is not None
    said = [place for place, role in enumerate(reading.roles) if role == "assistant"]
    assert said and found.n_tokens == len(said)
    for place in said:
        along = float(rows[place] @ unit)
        assert found.cosine[place] == pytest.approx(along / float(rows[place].norm()), rel=1e-4, abs=1e-6)
        assert found.deviations[place] == pytest.approx((along - scale.token_mean) / scale.token_sd, rel=1e-3, abs=1e-4)
    mean = rows[said].mean(0)
    assert found.mean_cosine == pytest.approx(float(mean @ unit / mean.norm()), rel=1e-4)
    assert found.mean_deviations == pytest.approx((float(mean @ unit) - scale.reply_mean) / scale.reply_sd, rel=1e-3)


def test_the_strongest_features_can_be_those_of_one_speaker(world, persona):
    reading = read_chat(world.model, world.sae, [persona], CHAT)
    everywhere, said = reading.strongest(100), reading.strongest(100, role="assistant")
    assert {row["feature"] for row in said} <= {row["feature"] for row in everywhere}
    assert {reading.roles[row["position"]] for row in said} == {"assistant"}
    assert "template" not in {reading.roles[row["position"]] for row in everywhere}
    top = everywhere[0]
    spoken = [listed for role, listed in zip(reading.roles, reading.features, strict=True) if role != "template"]
    assert (
        top["activation"] == reading.values(top["feature"])[top["position"]] == max(v for listed in spoken for _, v in listed)
    )


def test_a_model_without_an_sae_and_a_vector_without_a_scale_can_be_read_too(world, persona):
    bare = Persona(TRAIT, persona.hook, persona.direction)
    reading = read_text(world.model, None, [bare], TEXT)
    found = reading.projections[TRAIT]
    assert not any(reading.features) and found.deviations is None and found.mean_deviations is None
    assert any(value for value in found.cosine[1:])


@pytest.mark.parametrize("text", ["", "a b c d e f g h i j k l m n o p"])
def test_no_text_and_too_long_a_text_are_refused(world, persona, text):
    with pytest.raises(WorkbenchError, match="2 to 8 tokens"):
        read_text(world.model, world.sae, [persona], text, max_tokens=8)


def test_a_reading_leaves_nothing_attached(world, persona):
    from tests.tiny import n_hooks

    read_tokens(world.model, world.sae, [persona], [5, 6, 7], ["plain"] * 3)
    before = n_hooks(world.model)
    read_tokens(world.model, world.sae, [persona], [5, 6, 7], ["plain"] * 3)
    assert n_hooks(world.model) == before


def test_a_scale_says_what_it_was_measured_on():
    scale = NeutralScale(1.0, 2.0, 1.0, 0.5, 100, 20)
    assert scale.of_token(5.0) == 2.0 and scale.of_reply(0.5) == -1.0
