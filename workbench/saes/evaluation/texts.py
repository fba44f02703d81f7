"""The texts that an SAE's fitness is measured on: held-out corpus, OpenWebText, Wikipedia, the model's own chats, rollouts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.base.randomness import derive_seed
from workbench.saes.evaluation.pooling import text_chat

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.models.prompts import ChatTokens

MAX_TOKENS = 256
CORPUS_CUT, CORPUS_PER_SOURCE = 1_100, 2_000
CHAT_TOKENS = 48


def text_ids(model: Model, text: str, max_tokens: int = MAX_TOKENS) -> tuple[int, ...]:
    """The ids of plain text, behind the start token where the tokenizer wants one, cut to `max_tokens`."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    wants_start = model.tokenizer("a")["input_ids"][:1] == [model.tokenizer.bos_token_id]
    return tuple([*([model.tokenizer.bos_token_id] if wants_start else []), *ids][:max_tokens])


def text_sets(model: Model, *, n_tokens: int, n_chats: int, seed: int = 0) -> dict[str, list[ChatTokens]]:
    """{"corpus", "owt", "wikipedia", "chats"}: rows of about `n_tokens` tokens each; chats are sampled here.

    `corpus` are sae-probes documents of the held-out role; web texts those of the evaluation role (no SAE trained with this
    package has seen either). `chats` are the model's own answers to exam questions that no recipe uses; 0 leaves them out.
    """
    from workbench.saes.corpus import documents, spread

    corpus = spread(
        documents("sae-probes", "held_out"), characters=40 * n_tokens, per_source=CORPUS_PER_SOURCE, cut=CORPUS_CUT
    )
    texts = {"corpus": (one.text for one in corpus)}
    texts |= {name: (one.text for one in documents(name, "evaluation")) for name in ("owt", "wikipedia")}
    sets = {name: _rows(model, found, n_tokens, every=8 if name == "corpus" else 1) for name, found in texts.items()}
    return sets | ({"chats": own_chats(model, n_chats, seed)} if n_chats else {})


def _rows(model: Model, texts: Iterable[str], n_tokens: int, *, every: int) -> list[ChatTokens]:
    """Rows until `n_tokens` are met; of the corpus every eighth text, so that many of its sets occur."""
    rows: list[ChatTokens] = []
    total = 0
    for index, text in enumerate(texts):
        if index % every:
            continue
        ids = text_ids(model, text)
        if len(ids) >= 16:
            rows.append(text_chat(ids))
            total += len(ids)
        if total >= n_tokens:
            break
    return rows


def own_chats(model: Model, n: int, seed: int, *, max_new_tokens: int = CHAT_TOKENS) -> list[ChatTokens]:
    """The model's answers (temperature 1) to `n` exam questions, as whole chats without a system prompt of ours."""
    from workbench.models.generation import Sampling, generate
    from workbench.models.prompts import tokenize_chat, with_response

    prompts = [
        tokenize_chat(model, [{"role": "user", "content": question}], add_generation_prompt=True)
        for question in exam_questions()[:n]
    ]
    seeds = [derive_seed("evaluation chats", seed, i) for i in range(len(prompts))]
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=1.0, top_p=1.0)
    rows = list(prompts)
    for places, results in generate(model, prompts, sampling, row_seeds=seeds, batch_size=32):
        for place, result in zip(places, results, strict=True):
            rows[place] = with_response(prompts[place], result.response_ids, lead_ids=result.lead_ids)
    return rows


def exam_questions() -> Sequence[str]:
    """Multiple-choice questions of the `evals` asset, without their answers, shortest first."""
    from workbench.models.assets import asset_path

    path = next(Path(asset_path("evals")).rglob("samples-all.jsonl"))
    lines = path.read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line)["question"] for line in lines), key=lambda text: (len(text), text))
