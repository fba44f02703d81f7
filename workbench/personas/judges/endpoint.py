"""Judges behind endpoints: a chat model reads the trait's rubric. One judge, two dialects."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.progress import track
from workbench.base.store import sha256_bytes
from workbench.models.endpoints import ChatEndpoint, EndpointConfig, EndpointError
from workbench.personas.judges import JudgeItem, Judgement, Outcome
from workbench.personas.judges.rubrics import (
    COHERENCE_RUBRIC,
    Coherence,
    check_coherence,
    fill,
    read_score,
    rubric_of,
)
from workbench.personas.judges.rules import coherence

if TYPE_CHECKING:
    from workbench.personas.traits import Trait


class EndpointJudge:
    """Asks a chat model the trait's rubric, once per distinct (question, answer); answers are cached on disk.

    A request that is given up after all retries, and an answer without a score, give "failed": the first is asked
    again by the next run, the second is not. A wrong key or an unknown model is an error at once.

    model, base_url: default to the settings judge_model and base_url; the key comes from the environment only.
    coherence: "rule" (the offline rule, no request) or "judge" (a second request per row).
    options: of `EndpointConfig` (timeout_seconds, n_attempts, ...).
    """

    name = ""
    n_top_logprobs = 0

    def __init__(self, *, model: str | None = None, base_url: str | None = None, n_workers: int = 8,
                 coherence: Coherence = "rule", cache_folder: str | Path | None = None, **options: Any) -> None:  # fmt: skip
        check_coherence(coherence)
        self.config = EndpointConfig.from_settings(
            model=model, base_url=base_url, dialect=self.name, **options
        )
        self.n_workers, self.coherence = n_workers, coherence
        self.cache_folder = Path(cache_folder) if cache_folder else None

    def description(self) -> dict[str, Any]:
        """The endpoint and the model; never the key."""
        return {"name": self.name, "model": self.config.model, "base_url": self.config.base_url,
                "coherence": self.coherence, "rubric_of_coherence": sha256_bytes(COHERENCE_RUBRIC.encode())}  # fmt: skip

    def score(self, items: Sequence[JudgeItem], trait: Trait | str) -> list[Judgement]:
        """One judgement per item, in order; identical items are asked once."""
        rubric = rubric_of(trait)
        distinct = list(dict.fromkeys(items))
        with (
            ChatEndpoint(self.config, self.cache_folder) as endpoint,
            ThreadPoolExecutor(self.n_workers) as pool,
            track("judging", len(distinct), "replies") as step,
        ):
            futures = [pool.submit(self._judge, endpoint, rubric, item) for item in distinct]
            for future in futures:
                future.add_done_callback(lambda _: step())
            try:
                judged = dict(zip(distinct, [future.result() for future in futures], strict=True))
            except BaseException:  # Ctrl-C, or a refused key: what was answered is cached
                endpoint.give_up()
                pool.shutdown(cancel_futures=True)
                raise
        return [judged[item] for item in items]

    def _judge(self, endpoint: ChatEndpoint, rubric: str, item: JudgeItem) -> Judgement:
        score, outcome = self._ask(endpoint, rubric, item)
        by_rule = self.coherence == "rule"
        readable = coherence(item.answer) if by_rule else self._ask(endpoint, COHERENCE_RUBRIC, item)[0]
        return Judgement(score, outcome, readable)

    def _ask(self, endpoint: ChatEndpoint, rubric: str, item: JudgeItem) -> tuple[float | None, Outcome]:
        messages = [{"role": "user", "content": fill(rubric, item)}]
        try:
            return read_score(endpoint.chat(messages, n_top_logprobs=self.n_top_logprobs))
        except EndpointError:
            return None, "failed"


class OpenAIJudge(EndpointJudge):
    """ "openai": any OpenAI-compatible endpoint, with the probability-weighted score of the persona vectors paper.

    score = sum_k k p(k) / sum_k p(k) over the integer tokens k = 0..100 among the top-20 log-probabilities of the first
    token, undefined when their mass is below .25 (Chen et al. 2025, arXiv 2507.21509). Where the endpoint sends no
    log-probabilities, or its tokens split numbers into digits, the sampled integer is used (temperature 0).
    """

    name = "openai"
    n_top_logprobs = 20


class AnthropicJudge(EndpointJudge):
    """ "anthropic": Anthropic's messages API, which sends no log-probabilities: the sampled integer (temperature 0).

    The key comes from ANTHROPIC_API_KEY or WORKBENCH_API_KEY; at another address than Anthropic's, from the latter only.
    """

    name = "anthropic"
