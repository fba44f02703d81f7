"""The extraction experiment in a planted world: rows of tokens, sinks left out, and the persona vector made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.base.tensors import tensor_hash
from workbench.models.hookpoints import HookPoint
from workbench.models.norms import SINK_FACTOR, robust_median
from workbench.personas.vectors import PersonaVector

from .difficulties import Difficulty
from .world import ARMS, World, seeded

if TYPE_CHECKING:
    import pandas

HOOK = HookPoint(0)
SINK_NORM = 100.0


@dataclass(frozen=True, repr=False)
class HeldTokens(Shown):
    """The tokens of a vector in memory, with what `PersonaVector.tokens` offers: hooks, hash and (row id, tokens)."""

    held: tuple[tuple[str, Tensor], ...]
    hooks: tuple[HookPoint, ...] = (HOOK,)

    @property
    def sha256(self) -> str:
        """The hash of all tokens."""
        return tensor_hash(torch.cat([tokens for _, tokens in self.held]))

    def intact(self) -> bool:
        """Always: nothing lies on disk."""
        return True

    def rows(self, hook: HookPoint) -> Iterator[tuple[str, Tensor]]:
        """(row id, activations [n_tokens, d_model]) of each row."""
        return iter(self.held)


@dataclass(frozen=True, eq=False, repr=False)
class Experiment(Shown):
    """One experiment: its vector (rows, weights, tokens without sinks) and the true mean activations behind each row.

    `true_codes [n_rows, n_features]` are means over the same tokens as the row's; `n_sinks` tokens were left out.
    """

    world: World
    seed: int
    vector: PersonaVector
    tokens: HeldTokens
    true_codes: Tensor
    n_sinks: int


def run_experiment(world: World, seed: int = 0) -> Experiment:
    """Questions x instructions x samples in two arms, as extraction lays them out.

    Position 0 and tokens of more than ten median norms are left out and the weights are those of extraction
    (`personas.extraction.contrast_weights`): the mean of the positive arm minus that of the negative one, each question
    weighing the same. `vector` points toward the persona. The same world and seed give the same experiment.
    """
    d, source = world.difficulty, generator(derive_seed("lab", "experiment", seed))
    rows = _rows(d)
    log_odds = _row_log_odds(world, rows, source)
    signs = [ARMS[arm] for arm in rows["arm"]]
    with seeded(derive_seed("lab", "tokens", seed)):
        codes = [
            world.generator_for(odds, sign).sample(d.n_tokens + 1) for odds, sign in zip(log_odds, signs, strict=True)
        ]
    activations = [_activations(world, row, source) for row in codes]
    kept = _without_sinks(activations)
    held = tuple(zip(rows["id"], (a[k] for a, k in zip(activations, kept, strict=True)), strict=True))
    true_codes = torch.stack([row[k].double().mean(dim=0) for row, k in zip(codes, kept, strict=True)])
    n_sinks = sum(int((~k).sum()) for k in kept)
    return Experiment(world, seed, _vector(world, rows, held), HeldTokens(held), true_codes, n_sinks)


def sample_tokens(world: World, n_tokens: int, seed: int = 0, *, row_tokens: int = 64) -> Tensor:
    """Tokens `[about n_tokens, d_model]` of fresh rows of both arms, sinks left out: what an SAE is trained on.

    Every row has its own question and instruction, so that the SAE sees the whole population.
    """
    source = generator(derive_seed("lab", "corpus", seed))
    n_rows = -(-n_tokens // row_tokens)
    log_odds = world.log_odds + world.spread * torch.randn(n_rows, world.n_features, generator=source)
    with seeded(derive_seed("lab", "corpus tokens", seed)):
        rows = [world.generator_for(odds, 1 - 2 * (i % 2)).sample(row_tokens + 1) for i, odds in enumerate(log_odds)]
    activations = [_activations(world, row, source) for row in rows]
    return torch.cat([row[keep] for row, keep in zip(activations, _without_sinks(activations), strict=True)])


def _rows(d: Difficulty) -> pandas.DataFrame:
    """One row per question, instruction, sample and arm, with the columns that weights and designs are made from."""
    import pandas

    cells = [
        (f"q{q}", f"i{i}", sample, arm)
        for q in range(d.n_questions) for i in range(d.n_instructions) for sample in range(d.n_samples) for arm in ARMS
    ]  # fmt: skip
    frame = pandas.DataFrame(cells, columns=["question_id", "instruction_id", "sample", "arm"])
    return frame.assign(id=[f"row{n}" for n in range(len(frame))], split="extraction")


def _row_log_odds(world: World, rows: pandas.DataFrame, source: torch.Generator) -> Tensor:
    """Log-odds of firing before the persona `[n_rows, n_features]`: the world's, and the effects that rows share."""
    sds, arm = world.sds, rows["arm"].astype(str)
    question, instruction = rows["question_id"].astype(str), rows["instruction_id"].astype(str)
    labels = {"question": question, "instruction": instruction, "wording": arm + instruction, "interaction": arm + question}
    total = world.log_odds.repeat(len(rows), 1)
    for name, column in {**labels, "row": rows["id"]}.items():
        codes = torch.tensor(column.astype("category").cat.codes.to_numpy(), dtype=torch.int64)
        total = total + sds[name] * torch.randn(int(codes.max()) + 1, world.n_features, generator=source)[codes]
    return total


def _activations(world: World, codes: Tensor, source: torch.Generator) -> Tensor:
    """Tokens of one row `[n, d_model]`: features, bias, what no feature has, and sinks (the first token among them)."""
    d = world.difficulty
    tokens = codes @ world.directions + world.bias + _outside(world, len(codes), source)
    if d.sink_share:
        sink = torch.rand(len(codes), generator=source) < d.sink_share
        sink[0] = True
        tokens[sink] += SINK_NORM * tokens.norm(dim=1).median() * world.directions[-1]
    return tokens


def _outside(world: World, n: int, source: torch.Generator) -> Tensor:
    """Noise `[n, d_model]` orthogonal to every feature, of the difficulty's norm: the part that no dictionary can say."""
    d = world.difficulty
    rest = world.complement
    if not d.noise or not len(rest):
        return torch.zeros(n, d.d_model)
    return d.noise / math.sqrt(len(rest)) * torch.randn(n, len(rest), generator=source) @ rest


def _without_sinks(activations: Sequence[Tensor]) -> list[Tensor]:
    """Which tokens of each row stay: not the first, and none above ten times the median norm (the package's rule)."""
    norms = [row.norm(dim=1) for row in activations]
    limit = SINK_FACTOR * robust_median(torch.cat([one[1:] for one in norms]))
    kept = [one <= limit for one in norms]
    for one in kept:
        one[0] = False
    return kept


def _vector(world: World, rows: pandas.DataFrame, held: tuple[tuple[str, Tensor], ...]) -> PersonaVector:
    from workbench.personas.extraction import contrast_weights

    weights = contrast_weights(rows, rows["arm"].notna(), "positive", "negative")
    means = torch.stack([tokens.double().mean(dim=0) for _, tokens in held])
    direction = (torch.from_numpy(weights) @ means).float()[None]
    table = rows.assign(weight=weights, n_tokens=[len(tokens) for _, tokens in held])
    model = {"name": f"lab/{world.difficulty.name}"}
    return PersonaVector("planted", model, HOOK, (HOOK,), direction, None, None, None, table, tokens=HeldTokens(held))  # type: ignore[arg-type]
