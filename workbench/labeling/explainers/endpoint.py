"""Explainers behind endpoints: a chat model is shown contexts and asked for a label. One explainer, two dialects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from workbench.base.progress import track
from workbench.base.settings import setting
from workbench.labeling.evidence import FeatureEvidence
from workbench.labeling.explainers.budget import Estimate, Prices, check_cost, estimate
from workbench.labeling.explainers.prompt import METHOD, Message, messages_for, read_reply, repair_messages
from workbench.labeling.explainers.protocol import NO_CONTEXTS, Contrast, Explanation, unclear
from workbench.models.endpoints import ChatEndpoint, ChatReply, EndpointConfig, EndpointError
from workbench.models.transport import redacted

logger = logging.getLogger(__name__)
MAX_TOKENS = 400

NO_ANSWER = unclear("no answer", "The endpoint gave no answer after all attempts.", answered=False)
DECLINED = unclear("the model declined", "The model declined to answer.")
CUT_OFF = unclear("the answer was cut off", "The answer did not end within its tokens: allow more (--max-tokens).")


@dataclass(frozen=True, kw_only=True)
class ExplainerEndpoint(EndpointConfig):
    """Where the explainer asks; the key is read from the environment when a request is sent."""

    name_model: ClassVar[str] = "give --explainer-model, set WORKBENCH_EXPLAINER_MODEL or pass model"
    name_url: ClassVar[str] = "give --url, set WORKBENCH_EXPLAINER_URL or pass base_url"


class EndpointExplainer:
    """Asks a chat model about each feature once; what it answered is kept on disk and never asked again.

    The cache is keyed by address, model and the whole request, so by the evidence shown and the words of the prompt: an
    interrupted run goes on where it stopped. An answer that is not of the form asked for gets one request to repair it; what is
    unusable then, and a refusal, is an "unclear" label. A request that is given up after all retries is an explanation with
    `answered` False, asked again by the next run. A wrong key or an unknown model is an error at once. Before the first request
    the cost is estimated, told (`tell`, by default the log), and refused if it may exceed `max_cost`.

    name: "openai" or "anthropic". model, base_url: default to the settings explainer_model and explainer_url; the key comes from
    the environment only. contrast: contexts per feature in which it is silent. max_tokens: of one answer (thinking included).
    options: of `EndpointConfig` (timeout_seconds, n_attempts, ...).
    """

    def __init__(self, name: str = "openai", *, model: str | None = None, base_url: str | None = None,
                 contrast: Contrast | None = None, prices: Prices | None = None, max_cost: float | None = None,
                 tell: Callable[[str], None] = logger.info, max_tokens: int = MAX_TOKENS, n_workers: int = 8,
                 tokenizer: Any = None, cache_folder: str | Path | None = None, **options: Any) -> None:  # fmt: skip
        self.config = ExplainerEndpoint(
            model=str(setting("explainer_model", model, "")), base_url=str(setting("explainer_url", base_url, "")),
            dialect=name, **options,
        )  # fmt: skip
        self.name, self.contrast = name, contrast or {}
        self.prices, self.max_cost, self.tokenizer = prices or Prices(), max_cost, tokenizer
        self.tell, self.max_tokens, self.n_workers = tell, max_tokens, n_workers
        self.cache_folder = Path(cache_folder) if cache_folder else None

    @property
    def author(self) -> Mapping[str, str]:
        """{"kind": "model", "name": the endpoint's name for it, "method": which prompt}."""
        return {"kind": "model", "name": self.config.model, "method": METHOD}

    def description(self) -> dict[str, Any]:
        """The endpoint and the model; never the key."""
        return {"name": self.name, "model": self.config.model, "base_url": self.config.base_url}

    def estimate(self, evidence: Sequence[FeatureEvidence]) -> Estimate:
        """What explaining these will take, from what is not answered yet. Sends nothing."""
        with ChatEndpoint(self.config, self.cache_folder) as endpoint:
            chats = [chat for one in evidence if has_contexts(one) and (chat := self._next_chat(endpoint, one))]
        return estimate(chats, n_features=len(evidence), max_tokens=self.max_tokens, prices=self.prices,
                        tokenizer=self.tokenizer)  # fmt: skip

    def explain(self, evidence: FeatureEvidence) -> Explanation:
        """One feature."""
        return self.explain_all([evidence])[0]

    def explain_all(self, evidence: Sequence[FeatureEvidence]) -> list[Explanation]:
        """One explanation per feature, in order; `n_workers` requests are under way at a time.

        Raises:
            WorkbenchError: the cost may exceed the bound, or the endpoint refuses the request itself (key, model).
        """
        expected = self.estimate(evidence)
        check_cost(expected, self.max_cost)
        self.tell(f"{self.config.model}: {expected.sentence()}")
        with (
            ChatEndpoint(self.config, self.cache_folder) as endpoint,
            ThreadPoolExecutor(self.n_workers) as pool,
            track("Explaining features", len(evidence), "features") as step,
        ):
            futures = [pool.submit(self._one, endpoint, one) for one in evidence]
            for future in futures:
                future.add_done_callback(lambda _: step())
            try:
                return [future.result() for future in futures]
            except BaseException:  # Ctrl-C, or a refused key: what was answered is cached
                endpoint.give_up()
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, endpoint: ChatEndpoint, evidence: FeatureEvidence) -> Explanation:
        if not has_contexts(evidence):
            return NO_CONTEXTS
        messages = self._messages(evidence)
        try:
            reply = self._ask(endpoint, messages)
            said = _read(reply)
            if said is None:
                reply = self._ask(endpoint, repair_messages(messages, redacted(reply.text)))
                said = _read(reply, last=True)
        except EndpointError:
            return NO_ANSWER
        assert said is not None, "the last reading always gives an explanation"
        return said

    def _next_chat(self, endpoint: ChatEndpoint, evidence: FeatureEvidence) -> list[Message] | None:
        """What would be sent next about a feature, None when all is answered."""
        messages = self._messages(evidence)
        if (first := endpoint.stored(messages, max_tokens=self.max_tokens)) is None:
            return messages
        if _read(first) is not None:
            return None
        again = repair_messages(messages, redacted(first.text))
        return again if endpoint.stored(again, max_tokens=self.max_tokens) is None else None

    def _ask(self, endpoint: ChatEndpoint, messages: Sequence[Message]) -> ChatReply:
        # An answer without text (all was thinking, or was filtered) is paid for like any other, and asking again is no remedy.
        return endpoint.chat(messages, max_tokens=self.max_tokens, silence=True)

    def _messages(self, evidence: FeatureEvidence) -> list[Message]:
        return messages_for(evidence, self.contrast.get(evidence.feature, ()))


def has_contexts(evidence: FeatureEvidence) -> bool:
    """Whether there is anything to show of a feature."""
    return any(not context.is_withheld for context in evidence.contexts)


def _read(reply: ChatReply, *, last: bool = False) -> Explanation | None:
    # An endpoint may send the key back, in whatever it says.
    if reply.finish_reason in ("refusal", "content_filter") and not reply.text.strip():
        return DECLINED
    said = read_reply(redacted(reply.text), last=last)
    cut = reply.finish_reason in ("length", "max_tokens")  # the same question would be cut off again
    return CUT_OFF if cut and (said is None or (last and said.unclear)) else said
