"""Fine-tuning data from a trait's run: the replies that the judge kept, as chats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.models.finetuning import ChatExample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas

    from workbench.personas.vectors import PersonaVector


def kept_rows(vector: PersonaVector, *, arm: str = "positive", split: str = "extraction") -> pandas.DataFrame:
    """The rows of an arm that the judge kept (all usable ones where nobody judged), in the order of the run.

    Raises WorkbenchError for a vector without its rows, or without one in that arm.
    """
    rows: Any = vector.rows
    chosen = rows[(rows["arm"] == arm) & (rows["split"] == split) & rows["kept"] & (rows["response"].str.strip() != "")]
    if not len(chosen):
        raise WorkbenchError(
            f"the {vector.trait} vector has no kept {arm} reply to {split} questions",
            "a vector extracted with its rollouts",
            f"extract it first: workbench extract {vector.trait}",
        )
    return chosen.reset_index(drop=True)


def chat_examples(
    vector: PersonaVector, *, arm: str = "positive", split: str = "extraction", system: bool = False
) -> list[ChatExample]:
    """The kept replies of an arm as chats; the instruction that they were sampled under is left out unless `system`."""
    rows = kept_rows(vector, arm=arm, split=split)
    found: Any = rows.to_dict("records")
    return [ChatExample.of(row["question"], row["response"], system=row["system"] if system else "") for row in found]


def shuffled_replies(examples: Sequence[ChatExample], seed: int = 0) -> list[ChatExample]:
    """The same questions and the same replies, paired anew: no reply stays where it was, unless two are alike."""
    order = _permuted(len(examples), derive_seed("shuffled replies", seed))
    following = {place: order[(n + 1) % len(order)] for n, place in enumerate(order)}
    return [ChatExample(one.messages, examples[following[place]].reply) for place, one in enumerate(examples)]


def drawn(examples: Sequence[ChatExample], n: int, seed: int = 0) -> list[ChatExample]:
    """`n` of the examples without replacement (all of them where there are not so many), in a drawn order."""
    return [examples[place] for place in _permuted(len(examples), derive_seed("drawn examples", seed))[:n]]


def _permuted(n: int, seed: int) -> list[int]:
    import torch

    return torch.randperm(n, generator=generator(seed)).tolist()
