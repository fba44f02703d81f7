"""The texts that an SAE's fitness is measured on: held-out corpus, OpenWebText, Wikipedia, the model's own chats, rollouts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.randomness import derive_seed
from workbench.saes.evaluation.gate import of_these_weights
from workbench.saes.evaluation.pooling import text_chat

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.models.prompts import ChatTokens
    from workbench.saes.evaluation.gate import Carded

logger = logging.getLogger(__name__)
CORPUS = "sae-probes"
MAX_TOKENS = 256
CORPUS_CUT, CORPUS_PER_SOURCE = 1_100, 2_000
CHAT_TOKENS = 48


def text_ids(model: Model, text: str, max_tokens: int = MAX_TOKENS) -> tuple[int, ...]:
    """The ids of plain text, behind the start token where the tokenizer wants one, cut to `max_tokens`."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    wants_start = model.tokenizer("a")["input_ids"][:1] == [model.tokenizer.bos_token_id]
    return tuple([*([model.tokenizer.bos_token_id] if wants_start else []), *ids][:max_tokens])


def text_sets(
    model: Model, *, n_tokens: int, n_chats: int, seed: int = 0, corpus: str = CORPUS, split_on: int | None = CORPUS_CUT
) -> dict[str, list[ChatTokens]]:
    """{"corpus", "owt", "wikipedia", "chats"}: rows of about `n_tokens` tokens each; chats are sampled here.

    `corpus` are held-out documents of what the SAE was trained on (sae-probes, or a file: see `corpus_of` and, for `split_on`,
    `split_of`); web texts those of the evaluation role (no SAE trained with this package has seen either). `chats` are the
    model's own answers to exam questions that no recipe uses; 0 leaves them out.
    """
    from workbench.saes.corpus import own_file, source, spread

    own = own_file(corpus) is not None
    characters = 40 * n_tokens
    per_source = characters if own else CORPUS_PER_SOURCE
    documents = spread(source(corpus, "held_out", cut=split_on), characters=characters, per_source=per_source, cut=CORPUS_CUT)
    texts = {"corpus": (one.text for one in documents)}
    texts |= {name: (one.text for one in source(name, "evaluation")) for name in ("owt", "wikipedia")}
    every = {"corpus": 1 if own else 8}
    sets = {name: _rows(model, found, n_tokens, every=every.get(name, 1)) for name, found in texts.items()}
    return sets | ({"chats": own_chats(model, n_chats, seed)} if n_chats else {})


def corpus_of(sae: Carded) -> str:
    """The corpus that the recipe in an SAE's card names, where it is still there; else sae-probes.

    A card that does not say that it is of these weights is a stranger's: no file that it names is read.
    """
    from workbench.saes.corpus import own_file

    recipe = sae.card.get("recipe") if of_these_weights(sae.card, sae) else None
    data = recipe.get("data") if isinstance(recipe, dict) else None
    named = data.get("corpus") if isinstance(data, dict) else None
    if not isinstance(named, str) or named == CORPUS:
        return CORPUS
    if own_file(named) is None:
        logger.warning("%s, which the SAE was trained on, is not here: held-out texts of %s serve as corpus.", named, CORPUS)
        return CORPUS
    return named


def split_of(card: Mapping[str, Any]) -> int | None:
    """The characters whose hash said which documents of the corpus were held out, as far as a card tells; None for all.

    SAEs of before files were told apart from other sources ("file:") were trained by the hash of the whole text.
    """
    from workbench.saes.corpus import OWN

    recipe, told = card.get("recipe"), card.get("training_data")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    cut = data.get("cut") if isinstance(data, dict) else None
    sources = told.get("sources") if isinstance(told, dict) else None
    if isinstance(sources, dict) and not any(str(name).startswith(OWN) for name in sources):
        return None
    return cut if isinstance(cut, int) and cut > 0 else CORPUS_CUT


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
