"""What edits do to the answer to one prompt: the replies, how broken each is, and which features the edits turned up or down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from workbench.base.display import Shown
from workbench.models.prompts import Message
from workbench.steering.apply import steered
from workbench.steering.composition import compose
from workbench.steering.edits import Edit
from workbench.steering.replies import ReplyQuality, compare_replies, conversation, reply_quality

if TYPE_CHECKING:
    from workbench.labeling.labels import LabelSet
    from workbench.models.generation import Generated
    from workbench.models.model import Model
    from workbench.models.sampling import Sampling
    from workbench.saes.interface import SparseAutoencoder

UNSTEERED = "unsteered"
N_FEATURES = 6
ROUNDING = 1e-3
"""A change below this share of the largest one is none."""
BROKEN_RATIO, BROKEN_REPEATS = math.e, 0.5
"""A reply may be broken when its perplexity is e times the unsteered reply's, or half of its trigrams stood in it before."""


@dataclass(frozen=True)
class FeatureMove:
    """A feature's mean activation over the reply's predicting tokens without (`before`) and with (`after`) the edits."""

    feature: int
    before: float
    after: float
    label: str | None = None


@dataclass(frozen=True, repr=False)
class SteeredReply(Shown):
    """One arm's reply. `dose_in_norms` is the largest accumulated |delta| of what is added; 0 for other kinds of edits."""

    arm: str
    text: str
    finished: bool
    dose_in_norms: float
    quality: ReplyQuality
    may_be_broken: bool
    features: tuple[FeatureMove, ...] = ()
    """The features that the edits move most at these very tokens; () without an SAE, or where its site is before the edits."""


@dataclass(frozen=True, repr=False)
class SideBySide(Shown):
    """The unsteered reply to a prompt and those of the arms, drawn with the same random numbers."""

    prompt: str
    replies: tuple[SteeredReply, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def side_by_side(
    model: Model,
    prompt: str | Sequence[Message],
    arms: Mapping[str, Edit | Sequence[Edit]],
    sampling: Sampling | None = None,
    *,
    sae: SparseAutoencoder | None = None,
    labels: LabelSet | None = None,
    seed: int = 0,
) -> SideBySide:
    """The replies to `prompt` (a user's message, or a conversation): unsteered, and under each arm's edits.

    With `sae`, every reply says which features its edits move: the same tokens are read with and without them. Labels are of
    the SAE's features (`load_labels`).
    """
    from workbench.models.sampling import Sampling

    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    edits = {UNSTEERED: (), **{name: (arm,) if isinstance(arm, Edit) else tuple(arm) for name, arm in arms.items()}}
    *_, said = compare_replies(model, messages, list(edits.values()), sampling or Sampling(), seed=seed)
    replies: list[SteeredReply] = []
    for (name, arm), reply in zip(edits.items(), said, strict=True):
        quality, plain = reply_quality(model, reply, arm), replies[0].quality if replies else None
        moves = () if sae is None else moved_features(model, sae, reply, arm, labels=labels)
        broken = plain is not None and may_be_broken(quality, plain)
        replies.append(SteeredReply(name, reply.text, reply.finished, _dose(model, arm), quality, broken, moves))
    return SideBySide(str(messages[-1]["content"]), tuple(replies))


def may_be_broken(quality: ReplyQuality, plain: ReplyQuality) -> bool:
    """The rule of thumb of BROKEN_RATIO and BROKEN_REPEATS, with `plain` the unsteered reply's quality."""
    unlikely = (quality.perplexity or 0.0) > BROKEN_RATIO * (plain.perplexity or math.inf)
    return unlikely or (quality.repeated or 0.0) >= BROKEN_REPEATS


@torch.no_grad()
def moved_features(
    model: Model, sae: SparseAutoencoder, reply: Generated, edits: Sequence[Edit], n: int = N_FEATURES, *,
    labels: LabelSet | None = None,
) -> tuple[FeatureMove, ...]:  # fmt: skip
    """The `n` features whose mean activation over the tokens that predict the reply changes most under `edits`, largest first.

    The tokens are the same with and without the edits, so nothing but the edits can be the reason.
    """
    if not reply.response_ids or not edits:
        return ()
    before = sae.encode(_residuals(model, sae, reply, ())).mean(dim=0)
    after = sae.encode(_residuals(model, sae, reply, edits)).mean(dim=0)
    change = (after - before).abs()
    largest = change.topk(min(n, sae.d_sae))
    moved = largest.values > ROUNDING * largest.values[0]
    chosen = largest.indices[moved].tolist()
    return tuple(FeatureMove(index, float(before[index]), float(after[index]), _label(labels, index)) for index in chosen)


def _label(labels: LabelSet | None, feature: int) -> str | None:
    found = None if labels is None else labels.get(feature)
    return None if found is None else found.label


def _residuals(model: Model, sae: SparseAutoencoder, reply: Generated, edits: Sequence[Edit]) -> torch.Tensor:
    """The residual stream [n_response, d_model] at the SAE's hook, where the reply's tokens are predicted."""
    kept: list[torch.Tensor] = []
    ids = torch.tensor([conversation(reply).ids])
    with steered(model, edits, prompt_width=len(reply.prompt.ids)), model.hooked({sae.hook: kept.append}):
        model.forward(ids, stop_after=sae.hook.block)
    return kept[0][0, ids.shape[1] - len(reply.response_ids) - 1 : -1].float()


def _dose(model: Model, edits: Sequence[Edit]) -> float:
    composed = compose(edits)
    return composed.dose_in_norms(dict(zip(composed.measured_at, model.norm_medians(composed.measured_at).tolist(), strict=True)))
