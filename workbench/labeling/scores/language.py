"""Detection and fuzzing by a language model: behind an endpoint, or on this machine.

Source of both tasks: Paulo et al. 2024 (arXiv 2410.13928). The prompts are our own; the endpoint gives graded answers, so that an
AUROC means something without log-probabilities.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.randomness import derive_seed
from workbench.base.settings import setting
from workbench.labeling.scores.examples import Example
from workbench.labeling.scores.prompts import many_prompt, one_prompt, read_numbers
from workbench.labeling.scores.protocol import DETECTION, FUZZING, Label, wording
from workbench.models.endpoints import ChatEndpoint, EndpointConfig, EndpointError

if TYPE_CHECKING:
    from workbench.models.model import Model

TASKS = (DETECTION, FUZZING)
N_TRIES = 2
TOKENS_PER_NUMBER = 6


class EndpointScorer:
    """Asks a chat model behind an endpoint, `per_request` texts at a time in an order that is random in the seed.

    Each text gets a number from 0 to 100, read as a share; above one half counts as yes. An answer that is no list of as many
    numbers is asked for once more, then its texts have no score; so have those of a request that was given up. Answers are cached
    on disk by the content of the question, so that an interrupted run asks nothing twice. A wrong key or an unknown model is an
    error at once.

    dialect: "openai" or "anthropic"; model, base_url: default to the settings judge_model and base_url; the key comes from the
    environment only. options: of `EndpointConfig` (timeout_seconds, n_attempts, ...).
    """

    threshold: float | None = 0.5

    def __init__(
        self,
        dialect: str = "openai",
        *,
        task: str = DETECTION,
        model: str | None = None,
        base_url: str | None = None,
        per_request: int = 10,
        n_workers: int = 8,
        seed: int = 0,
        cache_folder: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.task, self.kind = check_task(task), f"{dialect}_{task}_auroc"
        self.config = EndpointConfig.from_settings(model=model, base_url=base_url, dialect=dialect, **options)
        self.per_request, self.n_workers, self.seed = per_request, n_workers, seed
        self.cache_folder = Path(cache_folder) if cache_folder else None

    def description(self) -> Mapping[str, Any]:
        """The endpoint, the model and the task; never the key."""
        settings = {"model": self.config.model, "base_url": self.config.base_url, "per_request": self.per_request}
        return {"kind": self.kind, "task": self.task, **settings}

    def n_requests(self, n_examples: int) -> int:
        """How many requests so many examples of one label take (retries apart)."""
        return -(-n_examples // self.per_request)

    def scores(self, label: Label, examples: Sequence[Example]) -> list[float | None]:
        """One number per example between 0 and 1, None where no answer came."""
        parts = self._parts(label, len(examples))
        found: list[float | None] = [None] * len(examples)
        with ChatEndpoint(self.config, self.cache_folder) as endpoint, ThreadPoolExecutor(self.n_workers) as pool:
            asked = [pool.submit(self._ask, endpoint, label, [examples[i] for i in part]) for part in parts]
            try:
                for part, future in zip(parts, asked, strict=True):
                    for index, value in zip(part, future.result(), strict=True):
                        found[index] = value
            except BaseException:  # Ctrl-C, or a refused key: what was answered is cached
                endpoint.give_up()
                pool.shutdown(cancel_futures=True)
                raise
        return found

    def _parts(self, label: Label, n: int) -> list[list[int]]:
        """Positives and negatives mixed, so that no request gives the answer away by its order."""
        order = list(range(n))
        random.Random(derive_seed("endpoint scorer", wording(label), n, self.seed)).shuffle(order)
        return [order[start : start + self.per_request] for start in range(0, n, self.per_request)]

    def _ask(self, endpoint: ChatEndpoint, label: Label, examples: Sequence[Example]) -> Sequence[float | None]:
        messages = [{"role": "user", "content": many_prompt(label, examples, self.task)}]
        for sample in range(N_TRIES):
            try:
                reply = endpoint.chat(messages, max_tokens=TOKENS_PER_NUMBER * len(examples) + 16, sample=sample)
            except EndpointError:
                break
            if (numbers := read_numbers(reply.text, len(examples))) is not None:
                return numbers
        return [None] * len(examples)


class LocalScorer:
    """Reads the question about each text with a model on this machine; p(Yes) / (p(Yes) + p(No)) where its answer begins.

    p counts both spellings ("Yes", "yes"). A small model says yes to nearly everything: its order of texts (AUROC) can be
    worth something where its threshold at one half is not.

    model: what `load_model` takes, or a Model; defaults to the setting judge_model. max_tokens: most positions of one forward
    pass. A prompt longer than the model's context has no score.
    """

    threshold: float | None = 0.5

    def __init__(
        self,
        model: str | Path | Model | None = None,
        *,
        task: str = DETECTION,
        dtype: str | None = None,
        device: str | None = None,
        max_tokens: int = 8192,
    ) -> None:
        self.task, self.kind = check_task(task), f"local_{task}_auroc"
        self._source: Any = model if model is not None else setting("judge_model", None)
        if not self._source:
            raise WorkbenchError("no scoring model is named", "a model's name, folder, GGUF file or hub id",
                                 "give --scorer-model, set WORKBENCH_JUDGE_MODEL or pass model")  # fmt: skip
        self.dtype, self.device, self.max_tokens = str(setting("judge_dtype", dtype, "float32")), device, max_tokens

    @cached_property
    def model(self) -> Model:
        """The model, loaded when first needed."""
        from workbench.models.loading import load_model
        from workbench.models.model import Model

        if isinstance(self._source, Model):
            return self._source
        return load_model(str(self._source), dtype=self.dtype, device=self.device)

    def description(self) -> Mapping[str, Any]:
        """The model with the hash of its weights, and the task."""
        return {"kind": self.kind, "task": self.task, "model": self.model.name, "weights_hash": self.model.weights_hash}

    def scores(self, label: Label, examples: Sequence[Example]) -> list[float | None]:
        """One number per example between 0 and 1."""
        from workbench.models.continuations import string_probabilities
        from workbench.personas.judges.local import before_answer

        strings, n_yes = self._answers
        prompts = [before_answer(self.model, one_prompt(label, example, self.task)) for example in examples]
        longest = getattr(self.model.config, "max_position_embeddings", None) or float("inf")
        room = longest - max(map(len, strings.sequences))
        fitting = [index for index, ids in enumerate(prompts) if len(ids) <= room]
        found: list[float | None] = [None] * len(examples)
        asked = [prompts[index] for index in fitting]
        for indices, masses in string_probabilities(self.model, asked, strings, max_tokens=self.max_tokens):
            yes, total = masses[:, :n_yes].sum(1).tolist(), masses.sum(1).tolist()
            for index, up, both in zip(indices, yes, total, strict=True):
                found[fitting[index]] = up / both if both > 0 else None
        return found

    @cached_property
    def _answers(self) -> tuple[Any, int]:
        """(the spellings of yes and no as the model's tokens where an answer begins, how many of them say yes)."""
        from workbench.models.continuations import Strings

        yes, no = (
            list(dict.fromkeys(_answer_ids(self.model, said) for said in spellings))
            for spellings in (("Yes", "yes"), ("No", "no"))
        )
        return Strings([*yes, *no]), len(yes)


def check_task(task: str) -> str:
    """The task itself. Raises WorkbenchError for an unknown one."""
    if task not in TASKS:
        raise unknown_name("scoring task", task, TASKS)
    return task


def _answer_ids(model: Model, answer: str) -> tuple[int, ...]:
    from workbench.models.prompts import tokenize_chat

    chat = tokenize_chat(model, [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}])
    start, end = chat.spans["response"][-1]
    return chat.ids[start:end]
