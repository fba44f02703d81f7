"""The cap is the paper's formula, in our words and in the published files' words, and at minus infinity it is nothing at all."""

from __future__ import annotations

import math

import pytest
import torch

from tests.axis.capping.planted import HOOKS, SHORT, axis, model, rows
from tests.labeling.planted import planted_sae
from workbench.axis.capping.bands import band, bands
from workbench.axis.capping.caps import Capping, axis_cap, axis_capping
from workbench.axis.capping.projections import reply_chats, token_projections
from workbench.axis.capping.published import read_cappings, write_cappings
from workbench.base.errors import WorkbenchError
from workbench.models.capture import capture
from workbench.models.generation import generate
from workbench.models.hookpoints import HookPoint
from workbench.personas.reencoding import prompt_tokens
from workbench.steering.apply import steered
from workbench.steering.composition import compose
from workbench.steering.cost.treatments import edits_key
from workbench.steering.edits import Edit

HOOK = HOOKS[1]


def tokens_at(hook: HookPoint, edits=()) -> torch.Tensor:
    with steered(model(), list(edits)):
        found = [one for _, batch in capture(model(), reply_chats(model(), rows()), (), token_hooks=[hook]) for one in batch]
    return torch.cat([one.tokens[hook] for one in found])


def test_the_cap_is_the_papers_formula_and_leaves_tokens_above_the_limit_bit_for_bit():
    h, u = tokens_at(HOOK), torch.nn.functional.normalize(axis().at(HOOK), dim=0)
    tau = float((h @ u).median()) - 1e-3  # no token lies on it
    wanted = h - u * ((h @ u)[:, None] - tau).clamp_max(0)
    capped = tokens_at(HOOK, axis_cap(axis(), {HOOK: tau}, scope="all"))
    assert torch.allclose(capped, wanted, atol=1e-5)
    above = h @ u >= tau
    assert torch.equal(capped[above], h[above])
    assert 0.3 < float(above.float().mean()) < 0.7
    assert float((capped @ u).min()) >= tau - 1e-4


def test_a_published_file_clamps_above_along_the_opposite_vector_which_is_the_same_cap(tmp_path):
    h, w = tokens_at(HOOK), -torch.nn.functional.normalize(axis().at(HOOK), dim=0)
    cap = float((h @ w).median())
    document = {"vectors": {"v": {"layer": 1, "vector": 3 * w}}, "experiments": [{"id": "e", "interventions": [{"vector": "v", "cap": cap}]}]}  # noqa: E501
    torch.save(document, tmp_path / "theirs.pt")
    found = read_cappings(tmp_path / "theirs.pt")["e"]
    theirs = h - w * ((h @ w)[:, None] - cap).clamp_min(0)
    assert torch.allclose(tokens_at(HOOK, found.edits(scope="all")), theirs, atol=1e-5)
    assert [(cap.hook.block, cap.side) for cap in found.caps] == [(1, "below")]


def test_what_is_written_in_the_published_layout_reads_back_the_same(tmp_path):
    ours = axis_capping(axis(), {hook: 0.1 * hook.block - 1 for hook in HOOKS}, name="mine")
    write_cappings([ours], tmp_path / "ours.pt")
    back = read_cappings(tmp_path / "ours.pt")["mine"]
    assert torch.allclose(back.directions, ours.directions)
    assert [(cap.hook, cap.limit, cap.side) for cap in back.caps] == [(cap.hook, cap.limit, cap.side) for cap in ours.caps]


def test_at_minus_infinity_every_token_of_a_reply_is_the_uncapped_one():
    prompts = [prompt_tokens(model(), "", text) for text in rows()["question"]]

    def said(edits) -> list:
        with steered(model(), edits):
            return sorted((i, one.response_ids, one.means.tolist()) for indices, made in
                          generate(model(), prompts, SHORT, row_seeds=range(12), hooks=HOOKS)
                          for i, one in zip(indices, made, strict=True))  # fmt: skip

    nothing = axis_capping(axis(), dict.fromkeys(HOOKS, -math.inf))
    assert said(nothing.edits()) == said([])
    assert not compose(nothing.edits()).edits
    assert said(axis_cap(axis(), dict.fromkeys(HOOKS, 50.0))) != said([])


def test_a_capping_is_saved_with_its_hash_and_refuses_another_model(tmp_path):
    ours = axis_capping(axis(), {HOOKS[0]: -math.inf, HOOKS[1]: 0.25})
    ours.save(tmp_path)
    back = Capping.load(tmp_path)
    assert back.caps == ours.caps
    assert torch.equal(back.directions, ours.directions)
    back.check(model())
    with pytest.raises(WorkbenchError, match="Calibrate on this model"):
        Capping(ours.name, {"name": "other", "weights_hash": "00"}, ours.caps, ours.directions).check(model())
    (tmp_path / "capping.safetensors").write_bytes(b"damaged")
    with pytest.raises(WorkbenchError):
        Capping.load(tmp_path)


def test_a_published_file_that_runs_code_or_holds_something_else_is_refused(tmp_path):
    torch.save({"vectors": {}}, tmp_path / "half.pt")
    with pytest.raises(WorkbenchError, match="experiments"):
        read_cappings(tmp_path / "half.pt")
    used = [{"id": "e", "interventions": [{"vector": name, "cap": 1.0} for name in ("v", "w")]}]
    vectors = {"v": {"layer": 1, "vector": torch.ones(32)}, "w": {"layer": 1, "vector": torch.ones(16)}}
    torch.save({"vectors": vectors, "experiments": used}, tmp_path / "widths.pt")
    with pytest.raises(WorkbenchError, match="several widths"):
        read_cappings(tmp_path / "widths.pt")
    deep = {name: {"layer": 99, "vector": torch.ones(32)} for name in ("v", "w")}
    torch.save({"vectors": deep, "experiments": used}, tmp_path / "deep.pt")
    with pytest.raises(WorkbenchError, match="Calibrate on this model"):
        read_cappings(tmp_path / "deep.pt")["e"].check(model())
    import pickle

    (tmp_path / "code.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(WorkbenchError):
        read_cappings(tmp_path / "code.pt")


def test_a_features_activation_is_held_within_its_limit_and_nothing_else_changes():
    from dataclasses import replace

    sae = replace(planted_sae(), model_name=model().name)
    h = tokens_at(HOOK)
    z = sae.encode(h)
    active = int((z > 0).float().mean(dim=0).argmax())
    limit = float(z[:, active][z[:, active] > 0].median())
    capped = tokens_at(HOOK, [Edit.cap_feature(sae, active, limit)])
    assert torch.allclose(capped, h + (z[:, active].clamp_max(limit) - z[:, active])[:, None] * sae.decoder_directions[active],
                          atol=1e-5)  # fmt: skip
    within = z[:, active] <= limit
    assert torch.equal(capped[within], h[within])
    assert not within.all()
    raised = tokens_at(HOOK, [Edit.cap_feature(sae, active, limit, side="below")])
    assert torch.allclose(raised, h + (z[:, active].clamp_min(limit) - z[:, active])[:, None] * sae.decoder_directions[active],
                          atol=1e-5)  # fmt: skip
    assert Edit.cap_feature(sae, active, 0.0, side="below").changes_nothing
    assert Edit.cap_feature(sae, active, math.inf).changes_nothing


def test_caps_on_a_feature_are_not_taken_for_those_of_an_sae_that_reads_it_otherwise():
    from dataclasses import replace

    sae = replace(planted_sae(), model_name=model().name)
    other = replace(sae, encoder=sae.encoder + 0.1, weights_hash="another")
    ours, theirs = (edits_key([Edit.cap_feature(one, 1, 0.5)]) for one in (sae, other))
    assert ours == edits_key([Edit.cap_feature(sae, 1, 0.5, scope="predicting")]) != theirs


def test_several_features_of_one_sae_are_read_once_before_any_changes():
    from dataclasses import replace

    sae = replace(planted_sae(), model_name=model().name)
    h = tokens_at(HOOK)
    z = sae.encode(h)
    edits = [Edit.cap_feature(sae, 0, 0.1), Edit.set_feature(sae, 1, 0.5), Edit.cap_feature(sae, 2, 0.7, side="below")]
    values = torch.stack([z[:, 0].clamp_max(0.1), torch.full_like(z[:, 1], 0.5), z[:, 2].clamp_min(0.7)], dim=1)
    wanted = h + (values - z[:, :3]) @ sae.decoder_directions[:3]
    assert torch.allclose(tokens_at(HOOK, edits), wanted, atol=1e-5)


def test_projections_are_inner_products_with_the_unit_axis():
    found = token_projections(model(), reply_chats(model(), rows()), {HOOK: axis().at(HOOK)[None]})
    u = torch.nn.functional.normalize(axis().at(HOOK), dim=0)
    assert torch.allclose(torch.cat(found[HOOK])[:, 0].sort().values, (tokens_at(HOOK) @ u).sort().values, atol=1e-5)
    assert [len(one) for one in found[HOOK]] == rows()["n_tokens"].tolist()


def test_bands_are_blocks_of_the_axis_and_unknown_ones_are_named():
    many = torch.ones(30, 4)
    from workbench.axis.capping.controls import direction_at_hooks

    wide = direction_at_hooks("a", {}, {HookPoint(block): row for block, row in enumerate(many)}, HookPoint(15))
    found = {name: [hook.block for hook in hooks] for name, hooks in bands(wide, 30).items()}
    assert found["own"] == [15]
    assert found["around"] == [13, 14, 15, 16, 17]
    assert found["published"] == [22, 23, 24]
    assert found["early"] + found["middle"] + found["late"] == found["all"] == list(range(30))
    assert [hook.block for hook in band(wide, 30, "3-5")] == [3, 4, 5]
    with pytest.raises(WorkbenchError, match="late"):
        band(wide, 30, "lat")
