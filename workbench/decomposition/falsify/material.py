"""What the checks read: the vector's answers token by token, the activations' spread, and what stands beside the vector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.decomposition.placebos import PlaceboCodes
from workbench.decomposition.result import Decomposition
from workbench.decomposition.shares import Design

if TYPE_CHECKING:
    import pandas

    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector

FIRST_TOKENS = 32
N_TYPES = 20
N_FREQUENT = 10
N_SAMPLED = 8192
_CLASSES: dict[str, Callable[[str], bool]] = {
    "all list and heading marks": lambda text: text.strip() in ("-", "*", "•", "#", "##", "###", "**", "1", "2", "3", "1.", "2."),
    "all exclamation marks": lambda text: "!" in text,
    "all line breaks": lambda text: "\n" in text,
}


@dataclass(frozen=True, eq=False, repr=False)
class Material(Shown):
    """Everything that a check may use; what is not known is None.

    `direction [d_model]` is v at the SAE's hook (float64), `activations [m, d_model]` tokens of the vector's own answers, else
    of the reference, `placebos` those that do not come close to the trait.
    """

    vector: PersonaVector
    sae: Any
    direction: Tensor
    decoder: Tensor
    parts: Decomposition
    answers: Answers | None
    activations: Tensor | None
    placebos: PlaceboCodes | None
    placebo_vectors: PlaceboVectors | None
    controls: Mapping[str, Tensor]
    other_seed: Tensor | None
    seed: int

    @property
    def within_arms(self) -> Tensor | None:
        """The activations `[m, d_model]` with both arms moved onto their common mean: what varies besides v."""
        if self.activations is None or self.answers is None:
            return self.activations
        moved, positive = self.activations.clone(), self.answers.of_positive
        for arm in (positive, ~positive):
            moved[arm] += self.activations.mean(dim=0) - self.activations[arm].mean(dim=0)
        return moved

    @property
    def placebo_directions(self) -> Tensor | None:
        """The vectors `[n, d_model]` of the placebos at the SAE's hook that do not come close to the trait."""
        if self.placebos is not None:
            return self.placebos.vectors[self.placebos.unrelated(self.vector.trait)].double()
        known = self.placebo_vectors
        if known is None or self.sae.hook not in known.hooks:
            return None
        return known.at(self.sae.hook, trait=self.vector.trait).double()


@dataclass(frozen=True, eq=False, repr=False)
class Answers(Shown):
    """The rows that carry weight in v, read token by token at one hook.

    `means`, `first`, `cut` `[n, d_model]` (float64) are the mean activation of an answer, of its first 32 tokens, and of the
    length that nine in ten answers to its question reach. `left_out [k, d_model]` is v made without the tokens of a group
    and `carried [k, d_model]` what these tokens add to v (tokens less the mean of the arms; over disjoint groups they add up);
    `spread [k]` is the share of the positions that they take. The first group is all frequent types together. `tokens` are
    some 8,192 of the activations, `of_positive [m]` says whose. `n_unaligned` answers had tokens left out as sinks: their
    tokens have no names.
    """

    frame: pandas.DataFrame
    design: Design
    means: Tensor
    first: Tensor
    cut: Tensor
    groups: tuple[str, ...]
    left_out: Tensor
    carried: Tensor
    spread: Tensor
    tokens: Tensor
    of_positive: Tensor
    n_unaligned: int

    @property
    def positive(self) -> Tensor:
        """Bool `[n]`: the arm with the trait."""
        return self.design.weights > 0

    @property
    def vector(self) -> Tensor:
        """v `[d_model]` made from the rows."""
        return self.design.weights @ self.means


def read_answers(used: pandas.DataFrame, tokens: Iterable[tuple[str, Tensor]], tokenizer: Any = None) -> Answers:
    """Read the rows of `used` (those with weight in v) once; `tokens` yields (row id, [n_tokens, d_model]).

    With a `tokenizer` the groups have words, and marks of all spellings are grouped. Rows without the column response_ids
    have no groups.
    """
    names = (used[name].fillna("").astype(str).tolist() for name in ("question_id", "instruction_id"))
    reader = _Reader(used, Design.of(used["weight"].tolist(), *names), tokenizer)
    place = {str(row): i for i, row in enumerate(used["id"])}
    with track("falsify: answers", len(place), "responses") as step:
        for row, held in tokens:
            if row in place and len(held):
                reader.read(place[row], held)
                step()
    return reader.finish()


class _Reader:
    """The answers read so far."""

    def __init__(self, used: pandas.DataFrame, design: Design, tokenizer: Any) -> None:
        self.frame, self.design = used, design
        named = "response_ids" in used.columns
        self.ids = [torch.tensor(list(ids), dtype=torch.int64) for ids in used["response_ids"]] if named else None
        self.groups = _groups(self.ids, design.weights.abs(), tokenizer) if self.ids is not None else {}
        reached: Any = used.groupby("question_id")["n_tokens"].quantile(0.1)
        self.limits = [max(1, int(reached[question])) for question in used["question_id"]]
        self.per_row: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.sums: Tensor | None = None
        self.sampled: list[Tensor] = []
        self.sampled_rows: list[int] = []
        self.n_unaligned = 0

    def read(self, i: int, held: Tensor) -> None:
        """One answer [n_tokens, d_model]."""
        exact = held.double()
        self.per_row[i] = exact.mean(dim=0), exact[:FIRST_TOKENS].mean(dim=0), exact[: self.limits[i]].mean(dim=0)
        keep = -(-N_SAMPLED // len(self.frame))
        self.sampled.append(held[:: max(1, len(held) // keep)][:keep].float().clone())
        self.sampled_rows += [i] * len(self.sampled[-1])
        if self.ids is not None:
            self._add_groups(i, exact)

    def _add_groups(self, i: int, exact: Tensor) -> None:
        assert self.ids is not None
        weight, n, total = self.design.weights[i], len(exact), exact.sum(dim=0)
        member = torch.zeros(len(self.groups), n, dtype=torch.float64)
        if n == len(self.ids[i]):
            member = torch.stack([inside(self.ids[i]) for inside in self.groups.values()]).double()
        else:
            self.n_unaligned += 1
        sums, counts = member @ exact, member.sum(dim=1, keepdim=True)
        without = torch.where(counts < n, (total - sums) / (n - counts).clamp_min(1), total / n)
        found = torch.stack([weight * without, weight * sums / n])
        rates = torch.stack([weight * counts[:, 0] / n, weight.abs() * counts[:, 0] / n])
        if self.sums is None:
            self.sums, self.rates = torch.zeros_like(found), torch.zeros_like(rates)
        self.sums, self.rates = self.sums + found, self.rates + rates

    def finish(self) -> Answers:
        """Everything in the order of the rows."""
        per_row = [self.per_row[i] for i in range(len(self.frame))]
        means, first, cut = (torch.stack(column) for column in zip(*per_row, strict=True))
        nothing = torch.zeros(0, means.shape[1], dtype=torch.float64)
        left_out, carried, spread = nothing, nothing, torch.zeros(0, dtype=torch.float64)
        if self.sums is not None:
            middle = self.design.weights.abs() @ means / self.design.weights.abs().sum()
            left_out, carried = self.sums[0], self.sums[1] - self.rates[0][:, None] * middle
            spread = self.rates[1] / self.design.weights.abs().sum()
        of_positive = (self.design.weights > 0)[torch.tensor(self.sampled_rows)]
        return Answers(self.frame, self.design, means, first, cut, tuple(self.groups), left_out, carried, spread,
                       torch.cat(self.sampled), of_positive, self.n_unaligned)  # fmt: skip


def _groups(ids: list[Tensor], weights: Tensor, tokenizer: Any) -> dict[str, Callable[[Tensor], Tensor]]:
    """By name, which positions of an answer's token ids belong to a group: bool [n_tokens]."""
    counted: Counter[int] = Counter()
    for row, weight in zip(ids, weights.tolist(), strict=True):
        for token, n in Counter(row.tolist()).items():
            counted[token] += weight * n / max(1, len(row))
    order = [token for token, _ in counted.most_common()]
    words = {token: tokenizer.decode([token]) for token in order} if tokenizer is not None else {}
    found = {f"the {N_FREQUENT} most frequent together": _any_of(order[:N_FREQUENT]), "the first token": _first}
    for name, belongs in _CLASSES.items():
        if members := [token for token, text in words.items() if belongs(text)]:
            found[name] = _any_of(members)
    for token in order[:N_TYPES]:
        name = repr(words[token]) if words else f"token {token}"
        found[name if name not in found else f"{name} ({token})"] = _any_of([token])
    return found


def _any_of(tokens: list[int]) -> Callable[[Tensor], Tensor]:
    wanted = torch.tensor(tokens, dtype=torch.int64)
    return lambda ids: torch.isin(ids, wanted)


def _first(ids: Tensor) -> Tensor:
    return torch.arange(len(ids)) == 0
