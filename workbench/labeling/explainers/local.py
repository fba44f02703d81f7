"""An explainer on this machine: any chat model that the workbench can load reads the prompt and writes the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.answers import AnswerCache
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.settings import cache_dir, setting
from workbench.labeling.evidence import FeatureEvidence
from workbench.labeling.explainers.prompt import METHOD, Message, messages_for, read_reply, repair_messages
from workbench.labeling.explainers.protocol import NO_CONTEXTS, Contrast, Explanation, unclear

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.models.prompts import ChatTokens

_CACHE_SCHEMA = 1
TOO_LONG = unclear("the prompt does not fit", "Even one context is longer than the explaining model can read.")


class LocalExplainer:
    """Asks a chat model loaded here, greedily (temperature 0), `batch_size` features at a time.

    What it answered is kept on disk by weights, template, dtype and the whole prompt: an interrupted run goes on from there.
    Answers that are not of the form asked for get one more prompt to repair them; what is unusable then is an "unclear" label.
    Prompts longer than the model's context are halved until they fit. Small models (under a billion weights) rarely name a
    feature well: score what they say.

    model: what `load_model` takes, or a Model; defaults to the setting explainer_model. contrast: contexts per feature in which
    it is silent. dtype: defaults to float32.
    """

    name = "local"

    def __init__(self, *, model: str | Path | Model | None = None, contrast: Contrast | None = None, dtype: str | None = None,
                 device: str | None = None, max_tokens: int = 200, batch_size: int = 8,
                 cache_folder: str | Path | None = None) -> None:  # fmt: skip
        named = model is None or isinstance(model, (str, Path))
        self._source: Any = str(setting("explainer_model", model, "")) if named else model
        if self._source == "":
            raise WorkbenchError("no model is named for the local explainer", "a model's name, folder, GGUF file or hub id",
                                 "give --explainer-model, set WORKBENCH_EXPLAINER_MODEL or pass model")  # fmt: skip
        self.contrast = contrast or {}
        self.dtype, self.device = dtype or "float32", device
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self.cache = AnswerCache(Path(cache_folder) if cache_folder else cache_dir() / "explanations")

    @property
    def source(self) -> str:
        """The name of what is loaded; of a Model that was given, its own."""
        return self._source if isinstance(self._source, str) else str(self._source.name)

    @cached_property
    def model(self) -> Model:
        """The explaining model, loaded when first needed."""
        if not isinstance(self._source, str):
            return self._source
        from workbench.models.loading import load_model

        return load_model(self._source, dtype=self.dtype, device=self.device)

    @property
    def author(self) -> dict[str, str]:
        """{"kind": "model", "name": the model's, "method": which prompt}."""
        return {"kind": "model", "name": self.model.name, "method": METHOD}

    def description(self) -> dict[str, Any]:
        """The model with the hashes of its weights and its chat template."""
        return {"name": self.name, "model": self.model.name, **self._identity}

    def explain(self, evidence: FeatureEvidence) -> Explanation:
        """One feature."""
        return self.explain_all([evidence])[0]

    def explain_all(self, evidence: Sequence[FeatureEvidence]) -> list[Explanation]:
        """One explanation per feature, in order; unanswered ones are asked in batches, and so are the repairs."""
        found: dict[int, Explanation] = {}
        chats: dict[int, list[Message]] = {}
        for index, one in enumerate(evidence):
            messages = self._fitting(one)
            if isinstance(messages, Explanation):
                found[index] = messages
            else:
                chats[index] = messages
        replies = self._replies(list(chats.values()), "Explaining features")
        first = dict(zip(chats, replies, strict=True))
        found |= {index: said for index, reply in first.items() if (said := read_reply(reply)) is not None}
        repairs = {i: repair_messages(chats[i], reply) for i, reply in first.items() if i not in found}
        again = self._replies(list(repairs.values()), "Asking again")
        for index, reply in zip(repairs, again, strict=True):
            said = read_reply(reply, last=True)
            assert said is not None, "the last reading always gives an explanation"
            found[index] = said
        return [found[index] for index in range(len(evidence))]

    def _fitting(self, evidence: FeatureEvidence) -> list[Message] | Explanation:
        """The chat about a feature, with as many contexts as the model's own context has room for."""
        top, spread = (tuple(c for c in part if not c.is_withheld) for part in (evidence.top, evidence.quantiles))
        silent = self.contrast.get(evidence.feature, ())
        if not top and not spread:
            return NO_CONTEXTS
        while not self._fits(messages := messages_for(replace(evidence, top=top, quantiles=spread), silent)):
            if len(top) + len(spread) == 1:
                return TOO_LONG
            top, spread, silent = top[: (len(top) + 1) // 2], spread[(len(spread) + 1) // 2 :], silent[: len(silent) // 2]
        return messages

    def _fits(self, messages: Sequence[Message]) -> bool:
        """Whether the prompt, an answer, the request to repair it and a second answer fit."""
        longest = getattr(self.model.config, "max_position_embeddings", None) or float("inf")
        return len(self._prompt(repair_messages(messages, "-"))) + 2 * self.max_tokens <= longest

    def _prompt(self, messages: Sequence[Message]) -> ChatTokens:
        from workbench.models.prompts import tokenize_chat

        return tokenize_chat(self.model, list(messages), add_generation_prompt=True)

    def _replies(self, chats: list[list[Message]], label: str) -> list[str]:
        """The reply to each chat: from disk, or generated batch by batch and stored at once."""
        known = {index: self.cache.read(self._question(chat)) for index, chat in enumerate(chats)}
        replies = {index: found["text"] for index, found in known.items() if isinstance(found, dict) and "text" in found}
        missing = [index for index in known if index not in replies]
        if missing:
            self._generate(chats, missing, replies, label)
        return [str(replies[index]) for index in range(len(chats))]

    def _generate(self, chats: list[list[Message]], missing: list[int], replies: dict[int, Any], label: str) -> None:
        from workbench.models.generation import generate
        from workbench.models.sampling import Sampling

        sampling = Sampling(max_new_tokens=self.max_tokens, temperature=0.0)
        prompts = [self._prompt(chats[index]) for index in missing]
        with track(label, len(missing), "features") as step:
            batches = generate(self.model, prompts, sampling, row_seeds=[0] * len(missing), batch_size=self.batch_size)
            for rows, generated in batches:
                for row, one in zip(rows, generated, strict=True):
                    replies[missing[row]] = one.text
                    self.cache.write(self._question(chats[missing[row]]), {"text": one.text})
                step(len(rows))

    @cached_property
    def _identity(self) -> dict[str, Any]:
        from workbench.models.prompts import chat_template_hash

        return {"weights_hash": self.model.weights_hash, "chat_template_hash": chat_template_hash(self.model),
                "dtype": str(self.model.dtype).removeprefix("torch.")}  # fmt: skip

    def _question(self, messages: Sequence[Message]) -> dict[str, Any]:
        return {"schema": _CACHE_SCHEMA, **self._identity, "max_new_tokens": self.max_tokens, "messages": list(messages)}
