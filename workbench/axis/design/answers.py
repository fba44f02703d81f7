"""What a model answers under some system prompts, the default assistant's among them: means per prompt and question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.axis.questions import question_bank
from workbench.axis.roles import DEFAULT, default_role
from workbench.axis.space.design import spread
from workbench.axis.space.rollouts import every_block
from workbench.axis.space.sums import group_sums
from workbench.axis.space.weights import DEFAULT_ARM, ROLE_ARM
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.models.hookpoints import HookPoint
from workbench.models.sampling import Sampling
from workbench.personas.judging import usable_mask
from workbench.personas.rollouts import Rollouts, collect_rows
from workbench.personas.rows import PlannedRow, RowIdentity
from workbench.personas.traits import Question

if TYPE_CHECKING:
    import pandas

    from workbench.models.model import Model
    from workbench.models.servers import ChatServer

REPORTING, CHOOSING = "sealed", "verification"
"""The splits of the question bank that figures are reported on, and that an addition is chosen on; neither made the axis."""


@dataclass(frozen=True, repr=False)
class PlaceDesign(Shown):
    """How much is sampled to place a prompt."""

    n_questions: int = 40
    """Questions that figures are reported on, spread over the sealed ones; the default assistant answers them too."""
    n_choosing: int = 20
    """Questions that an addition is chosen on, spread over the verification ones."""
    n_samples: int = 1
    """Answers per prompt and question."""
    most_pieces: int = 12
    """Sentences that are left out one at a time; those of a longer prompt are taken together in this many pieces."""
    conversations: int = 10
    """Scripted conversations per domain for the drift risk; 0 leaves it out."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=64, temperature=0.7, top_p=0.9))
    """Length, temperature and top-p, as for the roles."""
    batch_size: int = 32
    """Rows generated together; part of the identity of a run."""

    def __post_init__(self) -> None:
        for name, least in (("n_questions", 8), ("n_choosing", 8), ("n_samples", 1), ("most_pieces", 1), ("conversations", 0)):
            if getattr(self, name) < least:
                raise WorkbenchError(f"{name} = {getattr(self, name)}", f"at least {least}", "correct the design")

    def questions(self, split: str) -> tuple[Question, ...]:
        """The questions of a split, evenly spaced over it: fewer of them are some of more."""
        return spread(question_bank(split), self.n_questions if split == REPORTING else self.n_choosing)


@dataclass(frozen=True, eq=False, repr=False)
class Answers(Shown):
    """`means [n_prompts, n_questions, d_model]` (float64): mean over samples of a reply's mean activation at `hook`.

    NaN where no reply has a token. `prompts` are system prompts, each once, `questions` in their order.
    """

    prompts: tuple[str, ...]
    questions: tuple[Question, ...]
    hook: HookPoint
    means: Tensor
    rows: tuple[PlannedRow, ...]
    rollouts: Rollouts

    def of(self, prompt: str) -> Tensor:
        """The means `[n_questions, d_model]` under one prompt."""
        return self.means[self.prompts.index(prompt)]

    def frame(self, name: str, prompt: str, default: Sequence[str]) -> pandas.DataFrame:
        """The rows as `space.axis.role_vector` reads them: `prompt` is the role `name`, the prompts `default` the default."""
        own = [row.system == prompt for row in self.rows]
        spoken = [row.system in set(default) for row in self.rows]
        return self.rollouts.frame().assign(
            trait=[name if mine else DEFAULT for mine in own], arm=[ROLE_ARM if mine else DEFAULT_ARM for mine in own],
            split=["extraction" if mine or theirs else "sealed" for mine, theirs in zip(own, spoken, strict=True)],
            kept=True, adherence=[3.0 if mine else 0.0 for mine in own],
        )  # fmt: skip


def default_prompts(model: Model) -> tuple[str, ...]:
    """The default assistant's system prompts for this model."""
    return default_role().called(model.name).prompts


def collect_answers(
    model: Model,
    folder: str | Path,
    prompts: Sequence[str],
    questions: Sequence[Question],
    *,
    hook: HookPoint,
    design: PlaceDesign,
    token_hooks: Sequence[HookPoint] = (),
    seed: int = 0,
    server: ChatServer | None = None,
) -> Answers:
    """Sample what `folder` does not hold yet of every prompt's answers to every question, and return their means at `hook`.

    token_hooks: where every token is kept, for a decomposition. Any number of prompts may share the folder: a reply is kept by
    the content of all that it depends on.
    """
    texts = tuple(dict.fromkeys(prompts))
    rows = plan_answers(model, texts, questions, design, seed=seed, server=server)
    rollouts = collect_rows(
        rows, model, folder, sampling=design.sampling, batch_size=design.batch_size, hooks=every_block(model),
        token_hooks=tuple(token_hooks), server=server, label="answers under system prompts",
    )  # fmt: skip
    return Answers(texts, tuple(questions), hook, _means(rollouts, rows, texts, questions, hook), rows, rollouts)


def plan_answers(
    model: Model, prompts: Sequence[str], questions: Sequence[Question], design: PlaceDesign, *, seed: int = 0,
    server: ChatServer | None = None,
) -> tuple[PlannedRow, ...]:  # fmt: skip
    """A row for every prompt, question and sample; the vector of a prompt is made from them, so their split is "extraction"."""
    identity = RowIdentity(model, design.sampling, seed, server)
    return tuple(
        identity.row(("prompt", "extraction", question.id, content_hash(text)[:12], ROLE_ARM, sample), text, question.text)
        for text in prompts for question in questions for sample in range(design.n_samples)
    )  # fmt: skip


def _means(
    rollouts: Rollouts, rows: Sequence[PlannedRow], texts: Sequence[str], questions: Sequence[Question], hook: HookPoint
) -> Tensor:
    prompt, question = ({name: i for i, name in enumerate(names)} for names in (texts, [one.id for one in questions]))
    group = torch.tensor([prompt[row.system] * len(questions) + question[row.question_id] for row in rows])
    spoke = torch.tensor(usable_mask(rollouts.frame()).tolist())
    n = len(texts) * len(questions)
    sums = group_sums(rollouts, torch.where(spoke, group, -1), torch.ones(len(rows)), n, hooks=(hook,))[:, 0]
    count = torch.bincount(group[spoke], minlength=n).double()
    return (sums / count[:, None]).view(len(texts), len(questions), -1)


def both_known(*means: Tensor) -> Tensor:
    """The questions `[n_questions]` (bool) on which none of the means `[..., n_questions, d_model]` is missing."""
    known = torch.stack([one.isfinite().all(dim=-1).reshape(-1, one.shape[-2]).all(dim=0) for one in means]).all(dim=0)
    if int(known.sum()) < 2:
        raise WorkbenchError(f"{int(known.sum())} questions with replies under every prompt", "at least 2",
                             "let the replies be longer, or ask more questions")  # fmt: skip
    return known
