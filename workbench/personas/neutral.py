"""How far replies without a persona reach along a direction: the yardstick for the projection of any other text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.personas.vectors import PersonaVector

MIN_REPLIES = 8


@dataclass(frozen=True)
class NeutralScale:
    """Projections <h, v> / |v| of the neutral replies of a vector, in units of the residual stream.

    `token_mean` and `token_sd` are over their tokens, `reply_mean` and `reply_sd` over their mean activations (one number a
    reply: far less spread). Position 0 and sinks are left out, as in the vector itself.
    """

    token_mean: float
    token_sd: float
    reply_mean: float
    reply_sd: float
    n_tokens: int
    n_replies: int

    def of_token(self, projection: float) -> float:
        """A token's projection in standard deviations of neutral tokens, from their mean; positive is toward the trait."""
        return (projection - self.token_mean) / self.token_sd

    def of_reply(self, projection: float) -> float:
        """The projection of a mean activation in standard deviations of neutral replies, from their mean."""
        return (projection - self.reply_mean) / self.reply_sd


def neutral_scale(vector: PersonaVector, hook: HookPoint | None = None) -> NeutralScale | None:
    """The scale of the vector's own neutral replies (no persona in the system prompt) at `hook`, by default the vector's.

    None where fewer than 8 such replies kept their token activations, or where they do not vary.
    """
    where = hook or vector.hook
    if vector.tokens is None or where not in vector.tokens.hooks:
        return None
    neutral = set(vector.rows.loc[vector.rows["arm"] == "neutral", "id"])
    direction = vector.at(where)
    unit = direction / direction.norm()
    found = [rows.float() @ unit for name, rows in vector.tokens.rows(where) if name in neutral and len(rows)]
    return None if len(found) < MIN_REPLIES else _scale(found)


def _scale(replies: list[Tensor]) -> NeutralScale | None:
    tokens, means = torch.cat(replies).double(), torch.stack([reply.double().mean() for reply in replies])
    token_sd, reply_sd = float(tokens.std()), float(means.std())
    if not (token_sd > 0 and reply_sd > 0):
        return None
    return NeutralScale(float(tokens.mean()), token_sd, float(means.mean()), reply_sd, len(tokens), len(replies))
