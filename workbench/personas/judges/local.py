"""A judge on this machine: any causal language model reads the trait's rubric, and its own probabilities are the score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.answers import AnswerCache
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.settings import cache_dir, setting
from workbench.base.store import sha256_bytes
from workbench.models.continuations import Strings, string_probabilities
from workbench.models.model import Model
from workbench.models.prompts import ChatTokens, chat_template_hash, tokenize_chat
from workbench.personas.judges import JudgeItem, Judgement, Outcome
from workbench.personas.judges.rubrics import (
    COHERENCE_RUBRIC,
    MIN_MASS,
    REFUSAL,
    SCORES,
    Coherence,
    check_coherence,
    expected_score,
    fill,
    rubric_of,
)
from workbench.personas.judges.rules import coherence

if TYPE_CHECKING:
    from workbench.personas.traits import Trait

_CACHE_SCHEMA = 1
Verdict = tuple[float | None, Outcome]


class LocalJudge:
    """Reads the trait's rubric with a model loaded here, at the position where its answer begins (behind an empty
    thinking block where the template writes one).

    score = sum_k k p(k) / sum_k p(k) over the integers k = 0..100, undefined below a mass of .25 ("failed"), as in
    Chen et al. 2025 (arXiv 2507.21509), but from the whole distribution, not from 20 alternatives. Where every integer
    is one token, p(k) is that token's probability. Where the tokenizer splits numbers, p(k) is the probability of the
    string k followed by no further digit: p("80") = p(8) p(0 | 8) (1 - p(digit | 80)); prefixes less probable than 1e-6
    are not followed, which moves a score by less than .05. "refused" when the word REFUSAL is more probable than all
    integers together (and at least .25). A prompt longer than the model's context gives "failed".

    model: what `load_model` takes, or a Model; defaults to the setting judge_model. It may not be the judged model itself:
    `description` names the weights, and `extract` refuses its own. dtype: defaults to the setting judge_dtype, else float32.
    coherence: "rule" (the offline rule) or "judge" (a second prompt per row).
    max_tokens: most positions of one forward pass, which bounds the memory.
    Verdicts are cached on disk by weights, template, dtype, rubric, question and answer.
    """

    name = "local"

    def __init__(self, *, model: str | Path | Model | None = None, dtype: str | None = None, device: str | None = None,
                 coherence: Coherence = "rule", max_tokens: int = 8192,
                 cache_folder: str | Path | None = None) -> None:  # fmt: skip
        check_coherence(coherence)
        self._source = model if isinstance(model, Model) else str(setting("judge_model", model, ""))
        if not self._source:
            raise WorkbenchError("no judge model is named", "a model's name, folder, GGUF file or hub id",
                                 "give --judge-model, set WORKBENCH_JUDGE_MODEL or pass model")  # fmt: skip
        self.dtype, self.device = str(setting("judge_dtype", dtype, "float32")), device
        self.coherence, self.max_tokens = coherence, max_tokens
        self.cache = AnswerCache(Path(cache_folder) if cache_folder else cache_dir() / "verdicts")

    @cached_property
    def model(self) -> Model:
        """The judging model, loaded when first needed."""
        if isinstance(self._source, Model):
            return self._source
        from workbench.models.loading import load_model

        return load_model(self._source, dtype=self.dtype, device=self.device)

    def description(self) -> dict[str, Any]:
        """The model with the hashes of its weights and its chat template."""
        return {"name": self.name, "model": self.model.name, **self._identity, "coherence": self.coherence,
                "rubric_of_coherence": sha256_bytes(COHERENCE_RUBRIC.encode())}  # fmt: skip

    def score(self, items: Sequence[JudgeItem], trait: Trait | str) -> list[Judgement]:
        """One judgement per item, in order; identical items are read once."""
        verdicts = self._verdicts(items, rubric_of(trait))
        if self.coherence == "rule":
            readable: list[float | None] = [coherence(item.answer) for item in items]
        else:
            readable = [score for score, _ in self._verdicts(items, COHERENCE_RUBRIC)]
        return [Judgement(*verdict, known) for verdict, known in zip(verdicts, readable, strict=True)]

    def _verdicts(self, items: Sequence[JudgeItem], rubric: str) -> list[Verdict]:
        found = {item: self._stored(rubric, item) for item in dict.fromkeys(items)}
        missing = [item for item, verdict in found.items() if verdict is None]
        if missing:
            found |= self._read(missing, rubric)
        return [verdict for item in items if (verdict := found[item]) is not None]

    def _read(self, items: Sequence[JudgeItem], rubric: str) -> dict[JudgeItem, Verdict]:
        verdicts: dict[JudgeItem, Verdict] = dict.fromkeys(items, (None, "failed"))
        prompts = [before_answer(self.model, fill(rubric, item)) for item in items]
        longest = getattr(self.model.config, "max_position_embeddings", None) or float("inf")
        fitting = [
            (item, ids)
            for item, ids in zip(items, prompts, strict=True)
            if len(ids) + self._n_longest <= longest
        ]
        with track("judging", len(fitting), "replies") as step:
            ids = [ids for _, ids in fitting]
            options = {"max_tokens": self.max_tokens, "at_least": MIN_MASS}
            for indices, masses in string_probabilities(self.model, ids, self._strings, **options):
                for index, row in zip(indices, masses.tolist(), strict=True):
                    item = fitting[index][0]
                    verdicts[item] = read_masses(row[:-1], row[-1])
                    self._store(rubric, item, verdicts[item])
                step(len(indices))
        return verdicts

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {"weights_hash": self.model.weights_hash, "chat_template_hash": chat_template_hash(self.model),
                "dtype": str(self.model.dtype).removeprefix("torch.")}  # fmt: skip

    @cached_property
    def _strings(self) -> Strings:
        return answer_strings(self.model)

    @property
    def _n_longest(self) -> int:
        return max(len(ids) for ids in self._strings.sequences)

    def _question(self, rubric: str, item: JudgeItem) -> dict[str, Any]:
        return {
            "schema": _CACHE_SCHEMA,
            **self._identity,
            "rubric": rubric,
            "question": item.question,
            "answer": item.answer,
        }

    def _stored(self, rubric: str, item: JudgeItem) -> Verdict | None:
        stored: Any = self.cache.read(self._question(rubric, item))
        try:
            return stored["score"], stored["outcome"]
        except (TypeError, KeyError):
            return None  # nothing there, or a damaged entry

    def _store(self, rubric: str, item: JudgeItem, verdict: Verdict) -> None:
        self.cache.write(self._question(rubric, item), {"score": verdict[0], "outcome": verdict[1]})


def read_masses(numbers: Sequence[float], refusal: float) -> Verdict:
    """(score, outcome) of the probabilities of "0".."100" and of "REFUSAL", by the rule of `LocalJudge`."""
    if refusal >= MIN_MASS and refusal > sum(numbers):
        return None, "refused"
    score = expected_score(zip(SCORES, numbers, strict=True))
    return (score, "scored") if score is not None else (None, "failed")


def answer_strings(model: Model) -> Strings:
    """The integers 0..100 and "REFUSAL" as the model's tokens where an answer begins.

    Numbers of one token each stand for themselves; split numbers are closed by "no further digit".
    Raises WorkbenchError for a tokenizer that joins numbers with the template's text before them.
    """
    split = [_split_answer(_chat(model, "?", str(k))) for k in SCORES]
    befores = {before for before, _ in split}
    numbers = [ids for _, ids in split]
    if len(befores) > 1 or len(set(numbers)) < len(numbers):
        raise WorkbenchError(f"the tokenizer of {model.name} joins numbers with the text before them",
                             "numbers that are tokens of their own", "choose another judge model")  # fmt: skip
    before, refusal = _split_answer(_chat(model, "?", REFUSAL))
    if before not in befores:
        refusal = tuple(model.tokenizer(REFUSAL, add_special_tokens=False)["input_ids"])
    whole = all(len(ids) == 1 for ids in numbers)
    return Strings(numbers, [refusal], () if whole else _digit_tokens(model))


def _digit_tokens(model: Model) -> list[int]:
    """The ids of tokens that begin with a digit (no blank before it)."""
    n_ids = min(model.vocab_size, len(model.tokenizer))
    return sorted(
        i for token, i in model.tokenizer.get_vocab().items() if token[:1] in set("0123456789") and i < n_ids
    )


def before_answer(model: Model, prompt: str) -> tuple[int, ...]:
    """The ids of a chat with the user's `prompt`, up to where the template puts the answer."""
    return _split_answer(_chat(model, prompt, "0"))[0]


def _chat(model: Model, prompt: str, answer: str) -> ChatTokens:
    return tokenize_chat(
        model, [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    )


def _split_answer(chat: ChatTokens) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(ids before the answer, ids of the answer)."""
    start, end = chat.spans["response"][-1]
    return chat.ids[:start], chat.ids[start:end]
