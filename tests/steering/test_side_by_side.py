"""One prompt, several edits: which features an edit moves, and when a reply may be broken."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model
from workbench.base.display import html_for
from workbench.labeling.labels import FeatureLabel, LabelSet
from workbench.models.generation import Generated
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import tokenize_chat
from workbench.models.sampling import Sampling
from workbench.saes.interface import SparseAutoencoder
from workbench.steering.composition import compose
from workbench.steering.directions import NamedDirection
from workbench.steering.edits import Edit
from workbench.steering.export import export_gguf
from workbench.steering.replies import ReplyQuality
from workbench.steering.side_by_side import may_be_broken, moved_features, side_by_side

HOOK = HookPoint(1)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", seed=3)


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    basis = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))[0]
    zeros = torch.zeros(32)
    return SparseAutoencoder("tiny", HOOK, "tiny", "standard", basis.T.contiguous(), zeros, basis, zeros, "c" * 64)


def test_the_features_that_move_are_those_that_were_pushed(model, sae) -> None:
    labels = LabelSet("tiny", "c" * 64, {5: FeatureLabel(5, HOSTILE)})
    arms = {"up": Edit.feature(sae, 5, 1.0, scope="predicting"), "gone": Edit.set_feature(sae, 5)}
    arms["nothing"] = Edit.feature(sae, 5, 0.0)
    found = side_by_side(model, HOSTILE, arms, Sampling(max_new_tokens=6), sae=sae, labels=labels)
    replies = {reply.arm: reply for reply in found.replies}
    assert list(replies) == ["unsteered", *arms] and replies["nothing"].text == replies["unsteered"].text
    (move,) = replies["up"].features  # an orthogonal dictionary: no other feature can move
    assert move.feature == 5 and move.label == HOSTILE and move.after > move.before
    (gone,) = replies["gone"].features
    assert gone.feature == 5 and gone.after == pytest.approx(0, abs=1e-4) and gone.before > 0
    assert not replies["nothing"].features and not replies["unsteered"].features
    assert replies["up"].dose_in_norms == pytest.approx(1.0) and found.to_json()["replies"][1]["features"][0]["feature"] == 5


def test_features_are_read_where_the_reply_is_predicted(model, sae) -> None:
    prompt = tokenize_chat(model, [{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    reply, rows = Generated(prompt, (20, 21, 22), "", False), []
    (move,) = moved_features(model, sae, reply, [Edit.feature(sae, 5, 1.0, scope="predicting")])
    with model.hooked({HOOK: rows.append}):
        model.forward(torch.tensor([[*prompt.ids, 20, 21, 22]]))
    at = slice(len(prompt.ids) - 1, -1)  # the prompt's last token and all of the reply but its last, which predicts nothing
    assert move.before == pytest.approx(float(sae.encode(rows[0][0, at])[:, 5].mean()), abs=1e-5)


def test_features_before_the_edit_cannot_move(model, sae) -> None:
    arms = {"late": Edit.add(torch.ones(32), 1.0, hook=HookPoint(2))}
    assert not side_by_side(model, "Hi", arms, Sampling(max_new_tokens=4), sae=sae).replies[1].features


def test_unlikely_text_and_loops_may_be_broken() -> None:
    plain = ReplyQuality(10, 8.0, 0.0, 0.1)
    for quality, broken in ((ReplyQuality(10, 20.0, 1.0, 0.1), False), (ReplyQuality(10, 22.0, 1.0, 0.1), True),
                            (ReplyQuality(10, 8.0, 1.0, 0.5), True), (ReplyQuality(0, None, None, None), False)):  # fmt: skip
        assert may_be_broken(quality, plain) is broken
    assert may_be_broken(ReplyQuality(10, 999.0, 1.0, 0.1), ReplyQuality(0, None, None, None)) is False


def test_everything_shows_itself_in_words_with_its_texts_escaped(model, sae, tmp_path) -> None:
    edits = [Edit.add(torch.ones(32), [0.2, -0.4], hook=HOOK, label=HOSTILE), Edit.cap(torch.ones(32), 3.0, hook=HOOK),
             Edit.set_feature(sae, 5).on_rows([True, False])]  # fmt: skip
    composed = html_for(compose(edits))
    assert composed and "−0.4 to 0.2 by row" in composed and "coordinate at most 3" in composed
    found = side_by_side(model, HOSTILE, {HOSTILE: Edit.feature(sae, 5, 1.0)}, Sampling(max_new_tokens=4), sae=sae)
    direction = NamedDirection(HOSTILE, HOOK, torch.ones(32), {"method": HOSTILE, "features": [1, 2]})
    exported = export_gguf(Edit.add(torch.ones(32), 0.2, hook=HOOK, label=HOSTILE), model, tmp_path / "a.gguf")
    for value in (*edits, compose(edits), found, *found.replies, found.replies[0].quality, direction, exported):
        drawn = html_for(value)
        assert drawn and "<script>" not in drawn and len(repr(value)) < 400
