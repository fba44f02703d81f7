"""A tiny real model in which one direction makes one word likelier, and a judge that counts that word."""

from __future__ import annotations

from typing import Any

import torch

from tests.tiny import tiny_model
from workbench.models.hookpoints import HookPoint
from workbench.personas.judges import Judgement
from workbench.steering.cost.capability import Exam
from workbench.steering.cost.questions import Item, QuestionSet

HOOK = HookPoint(2)  # the last block: what is added there reaches the logits through the final norm alone
WORD = " suffer"


class WordJudge:
    """Points: 100 x the share of tokens of a reply that are the word's; the answer alone is read."""

    name = "word"

    def __init__(self, model: Any) -> None:
        self.tokenizer, self.token = model.tokenizer, word_token(model)
        self.n_scored = 0

    def score(self, items, trait):
        self.n_scored += len(items)
        return [self._one(item.answer) for item in items]

    def description(self):
        return {"name": self.name, "token": self.token}

    def _one(self, answer: str) -> Judgement:
        ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        return Judgement(100.0 * sum(i == self.token for i in ids) / max(len(ids), 1), "scored", 100.0)


def planted_model(seed: int = 5):
    return tiny_model("llama", seed=seed)


def word_token(model) -> int:
    return model.tokenizer(WORD, add_special_tokens=False)["input_ids"][0]


def word_direction(model) -> torch.Tensor:
    """What raises the word's logit and leaves the mean of the others alone."""
    rows = model.unembedding.float()
    return torch.nn.functional.normalize(rows[word_token(model)] - rows.mean(dim=0), dim=0)


def harmful_direction(model) -> torch.Tensor:
    """The same with a good part of something else, which has nothing to do with the word."""
    word = word_direction(model)
    other = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    other = other - (other @ word) * word
    return word + 0.7 * torch.nn.functional.normalize(other, dim=0)


def tiny_exam(model, n_documents: int = 12, n_items: int = 8) -> Exam:
    """Documents that the model writes itself (so that it knows them), and items whose right option is the one it prefers."""
    random = torch.Generator().manual_seed(2)
    documents = [tuple(_sampled(model, 24, random)) for _ in range(n_documents)]
    return Exam(tuple(documents), (preferred_set(model, n_items),))


def preferred_set(model, n_items: int, *, preferred: bool = True, name: str = "liked") -> QuestionSet:
    """Items whose right option is the one that the unedited model finds likelier (or the other one)."""
    from workbench.steering.cost.questions import answers

    options = [" happy", " cold", " long", " the river"]
    items = [Item(f"The people of town {i} are", (options[i % 4], options[(i + 1) % 4]), 0) for i in range(n_items)]
    liked = answers(model, QuestionSet(name, tuple(items))).correct.bool().tolist()
    right = [int(not first) if preferred else int(first) for first in liked]
    return QuestionSet(name, tuple(Item(item.question, item.options, place) for item, place in zip(items, right, strict=True)))


@torch.no_grad()
def _sampled(model, n: int, random: torch.Generator) -> list[int]:
    ids = [int(torch.randint(10, 300, (1,), generator=random))]
    while len(ids) < n:
        chances = model.forward(torch.tensor([ids]))[0, -1].softmax(dim=-1)
        ids.append(int(torch.multinomial(chances, 1, generator=random)))
    return ids
