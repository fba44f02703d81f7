"""A text read token by token: which features fire, and how far each token points along each persona vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.encoding import CODE_CELLS, sparse_codes
from workbench.labeling.contexts.streams import ROLES
from workbench.labeling.tokens import special_ids, token_strings
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import SPAN_NAMES, ChatTokens, Message, tokenize_chat
from workbench.personas.neutral import NeutralScale
from workbench.saes.token_rows import activations_at_hooks, counted_tokens

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

MAX_TOKENS = 1024
MAX_LISTED = 64
"""Features listed per token, the strongest first; most SAEs have fewer that fire at once."""
_ROLE_OF_SPAN = {span: "assistant" if span == "response" else span for span in SPAN_NAMES.values()}


@dataclass(frozen=True, eq=False)
class Persona:
    """A direction to project on: `direction` [d_model] at `hook` points toward the trait; `neutral` is its yardstick, if
    known.
    """

    trait: str
    hook: HookPoint
    direction: Tensor
    neutral: NeutralScale | None = None


@dataclass(frozen=True)
class Projection:
    """How far a text points along one persona vector v.

    Per token: `cosine` between the activation h and v, and `deviations`, the projection <h, v> / |v| in standard deviations of
    the tokens of neutral replies, from their mean (None without a yardstick). `mean_cosine` and `mean_deviations` are those
    of the mean activation, the latter in standard deviations of whole neutral replies, over the assistant's tokens where
    there are any, else over all that count. None on tokens that do not count. Positive is toward the trait.
    """

    trait: str
    hook: str
    cosine: tuple[float | None, ...]
    deviations: tuple[float | None, ...] | None
    mean_cosine: float | None
    mean_deviations: float | None
    n_tokens: int


@dataclass(frozen=True)
class TextReading:
    """Token by token: its string, who says it (one of ROLES), whether it counts, the features that fire on it.

    `features` are (feature, activation) per token, strongest first, at most MAX_LISTED of `n_firing`; by definition nothing fires
    on the first token, special tokens and sinks, which do not count. `projections` are by trait.
    """

    tokens: tuple[str, ...]
    roles: tuple[str, ...]
    counts: tuple[bool, ...]
    features: tuple[tuple[tuple[int, float], ...], ...]
    n_firing: tuple[int, ...]
    projections: dict[str, Projection]

    def values(self, feature: int) -> tuple[float, ...]:
        """The activation of one feature on every token; 0 where it is not listed."""
        return tuple(dict(listed).get(feature, 0.0) for listed in self.features)

    def strongest(self, n: int = 20, *, role: str | None = None) -> list[dict[str, Any]]:
        """The `n` features of the largest activation on any token (of one role): {feature, activation, position, n_tokens}.

        Without a role, on all but the template's tokens, which are the same in every chat.
        """
        found: dict[int, dict[str, Any]] = {}
        for position, listed in enumerate(self.features):
            said = self.roles[position]
            if said == "template" if role is None else said != role:
                continue
            for feature, value in listed:
                row = found.setdefault(feature, {"feature": feature, "activation": 0.0, "position": position, "n_tokens": 0})
                row["n_tokens"] += 1
                if value > row["activation"]:
                    row.update(activation=value, position=position)
        return sorted(found.values(), key=lambda row: (-row["activation"], row["feature"]))[:n]


def read_text(
    model: Model, sae: SparseAutoencoder | None, personas: Sequence[Persona], text: str, *, max_tokens: int = MAX_TOKENS
) -> TextReading:
    """A plain text, behind the start token where the tokenizer wants one. Raises WorkbenchError when it is empty or too
    long.
    """
    tokenizer = model.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else []
    roles = ["template"] * len(start) + ["plain"] * len(ids)
    return read_tokens(model, sae, personas, [*start, *ids], roles, max_tokens=max_tokens)


def read_chat(
    model: Model,
    sae: SparseAutoencoder | None,
    personas: Sequence[Persona],
    messages: Sequence[Message],
    *,
    max_tokens: int = MAX_TOKENS,
) -> TextReading:
    """A conversation under the model's chat template."""
    return read_tokens(model, sae, personas, *with_roles(tokenize_chat(model, messages)), max_tokens=max_tokens)


def with_roles(chat: ChatTokens) -> tuple[list[int], list[str]]:
    """The ids of a chat and who says each of them (one of ROLES)."""
    roles = ["template"] * len(chat.ids)
    for span, ranges in chat.spans.items():
        for start, end in ranges:
            roles[start:end] = [_ROLE_OF_SPAN[span]] * (end - start)
    return list(chat.ids), roles


@torch.no_grad()
def read_tokens(
    model: Model,
    sae: SparseAutoencoder | None,
    personas: Sequence[Persona],
    ids: Sequence[int],
    roles: Sequence[str],
    *,
    max_tokens: int = MAX_TOKENS,
) -> TextReading:
    """One pass over token ids; `roles` (of ROLES) has one entry per id. Raises WorkbenchError for fewer than 2 tokens or too
    many.
    """
    assert len(ids) == len(roles) and set(roles) <= set(ROLES)
    if not 2 <= len(ids) <= max_tokens:
        found = f"a text of {len(ids)} token{'' if len(ids) == 1 else 's'}"
        raise WorkbenchError(
            found, f"2 to {max_tokens} tokens", "shorten it" if len(ids) > 1 else "write more: the first never counts"
        )
    wanted: list[HookPoint] = [*([sae.hook] if sae else []), *(persona.hook for persona in personas)]
    hooks = list(dict.fromkeys(wanted))
    special = torch.isin(torch.tensor(ids), torch.tensor(special_ids(model.tokenizer), dtype=torch.long))
    rows = {hook: found[0].float() for hook, found in _activations(model, hooks, ids).items()}
    counted = counted_tokens(model, rows, special)
    everywhere = torch.stack(list(counted.values())).all(0) if counted else ~special
    features, n_firing = _features(sae, rows[sae.hook], counted[sae.hook]) if sae else (((),) * len(ids), (0,) * len(ids))
    return TextReading(
        tokens=token_strings(model.tokenizer, ids),
        roles=tuple(roles),
        counts=tuple(everywhere.tolist()),
        features=features,
        n_firing=n_firing,
        projections={one.trait: _projection(one, rows[one.hook], counted[one.hook], roles) for one in personas},
    )


def _activations(model: Model, hooks: list[HookPoint], ids: Sequence[int]) -> dict[HookPoint, Tensor]:
    return activations_at_hooks(model, hooks, torch.tensor([list(ids)])) if hooks else {}


def _features(
    sae: SparseAutoencoder, rows: Tensor, counted: Tensor
) -> tuple[tuple[tuple[tuple[int, float], ...], ...], tuple[int, ...]]:
    """(listed features, number of firing features) per token."""
    together = max(1, CODE_CELLS // sae.d_sae)
    listed: list[tuple[tuple[int, float], ...]] = []
    n_firing: list[int] = []
    for part, kept in zip(rows.split(together), counted.split(together), strict=True):
        counts, features, values = sparse_codes(sae.encode(part) * kept.to(sae.device)[:, None])
        ends = counts.cumsum()
        n_firing += counts.tolist()
        for start, end in zip(ends - counts, ends, strict=True):
            pairs = sorted(
                zip(features[start:end].tolist(), values[start:end].tolist(), strict=True), key=lambda p: (-p[1], p[0])
            )
            listed.append(tuple(pairs[:MAX_LISTED]))
    return tuple(listed), tuple(n_firing)


def _projection(one: Persona, rows: Tensor, counted: Tensor, roles: Sequence[str]) -> Projection:
    unit = (one.direction / one.direction.norm()).to(rows.device, rows.dtype)
    along, norms = (rows @ unit).cpu(), rows.norm(dim=-1).cpu()
    said = counted & torch.tensor([role == "assistant" for role in roles])
    used = said if bool(said.any()) else counted
    mean = rows[used.to(rows.device)].mean(0) if bool(used.any()) else None
    whole = None if mean is None else float(mean @ unit)
    scale = one.neutral
    return Projection(
        trait=one.trait,
        hook=str(one.hook),
        cosine=tuple(float(a / n) if keep else None for a, n, keep in zip(along, norms, counted, strict=True)),
        deviations=None if scale is None else tuple(scale.of_token(float(a)) if keep else None
                                                    for a, keep in zip(along, counted, strict=True)),
        mean_cosine=None if mean is None or whole is None else whole / float(mean.norm()),
        mean_deviations=None if scale is None or whole is None else scale.of_reply(whole),
        n_tokens=int(used.sum()),
    )  # fmt: skip
