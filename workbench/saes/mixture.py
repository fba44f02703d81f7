"""The rows of a data mix: corpus documents, the model's own chats, the traits' rollouts, and what is held out of each."""

from __future__ import annotations

import logging
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash, read_yaml
from workbench.saes.recipe import DataMix, Recipe
from workbench.saes.token_rows import TokenRow, text_rows

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.models.sampling import Sampling
    from workbench.saes.corpus import Document

logger = logging.getLogger(__name__)

Prompt = tuple[str, str]  # (system, user)
Dialogue = tuple[str, str, str]  # (system, user, assistant)
TraitPrompts = Callable[[str, str], Sequence[Prompt]]  # (trait, split) -> prompts
TraitRollouts = Callable[[str], Sequence[Dialogue]]  # trait -> what was sampled before on its extraction questions
HELD_OUT_CHARACTERS = 1_000_000
"""Corpus text held out at most: thresholds and figures need no more."""


@dataclass(frozen=True)
class Mixture:
    """Token rows in a seeded order; what is held out by kind (corpus, chats), kinds without rows left out."""

    train: list[TokenRow]
    held_out: dict[str, list[TokenRow]]


def mixture(
    recipe: Recipe,
    model: Model,
    folder: Path,
    trait_prompts: TraitPrompts,
    rollouts: TraitRollouts | None = None,
) -> Mixture:
    """The rows to train on and the rows to set thresholds on; chats are sampled once and kept in `folder`.

    Held out: one document in twenty by the hash of its text, and the chats of one user prompt (or question of a trait) in
    twenty by the hash of the prompt, whatever the system prompt. `rollouts` gives what an extraction sampled on the traits'
    extraction questions; without it they are sampled here.
    """
    data = recipe.data
    train = corpus_rows(model, data, "train", characters=data.characters)
    least = min(20_000, data.characters // 4)
    corpus = corpus_rows(model, data, "held_out", characters=min(HELD_OUT_CHARACTERS, max(least, data.characters // 20)))
    chats: list[TokenRow] = []
    for source, dialogues in _conversations(recipe, model, folder, trait_prompts, rollouts):
        seen = [one for one in dialogues if not _held_out(one[1])]
        other = [one for one in dialogues if _held_out(one[1])]
        of_trait = source.startswith("rollouts-")
        train += dialogue_rows(model, seen, data, source=source, seed=recipe.seed, as_text=of_trait)
        chats += dialogue_rows(model, other, data, source=source, seed=recipe.seed)
    held_out = {kind: rows for kind, rows in (("corpus", corpus), ("chats", chats)) if rows}
    for part, name in ((train, "rows"), (corpus, "held-out corpus"), (chats, "held-out chats")):
        random.Random(derive_seed(recipe.seed, name)).shuffle(part)
    _check(recipe, train, held_out)
    return Mixture(train, held_out)


def _check(recipe: Recipe, train: list[TokenRow], held_out: dict[str, list[TokenRow]]) -> None:
    """Refuse a mix that nothing can be trained or calibrated on, before anything is read through the model."""
    corpus_only = [plan.name for plan in recipe.plans if plan.data == "corpus"]
    if not train or not held_out or (corpus_only and "corpus" not in held_out):
        wanted = "corpus" if corpus_only and held_out else "text"
        raise WorkbenchError(
            f"{recipe.data.corpus} and {recipe.data.chats} chats give {len(train)} rows to train on and, held out, "
            f"{ {kind: len(rows) for kind, rows in held_out.items()} or 'none'}",
            f"rows of both: one document in twenty is held out, and documents need 16 tokens; there is no {wanted} to hold out",
            "give data.corpus more documents (some hundreds), or raise data.characters or data.chats",
        )


def _conversations(
    recipe: Recipe, model: Model, folder: Path, trait_prompts: TraitPrompts, rollouts: TraitRollouts | None
) -> Iterator[tuple[str, list[Dialogue]]]:
    """(source, its dialogues), the chats first; what has to be sampled is sampled together, in few large batches."""
    data = recipe.data
    wanted = [("chats", pair) for pair in chat_prompts(data.chats, recipe.seed)]
    for trait in data.traits if rollouts is None else ():
        pairs = trait_prompts(trait, "extraction")
        wanted += [(f"rollouts-{trait}", pair) for pair in pairs for _ in range(data.trait_samples)]
    found: dict[str, list[Dialogue]] = {}
    for (source, pair), response in zip(wanted, answers(model, wanted, data, folder, recipe.seed), strict=True):
        found.setdefault(source, []).append((*pair, response))
    if rollouts is not None:
        found |= {f"rollouts-{trait}": list(rollouts(trait)) for trait in data.traits}
    yield from found.items()


def _held_out(user: str) -> bool:
    """By the user's words alone: most chats are read without their system prompt."""
    from workbench.saes.corpus import HELD_OUT_PERCENT, Document

    return Document.of(user, "chat").bucket < HELD_OUT_PERCENT


def chat_prompts(n: int, seed: int) -> list[Prompt]:
    """`n` seeded pairs of a system and a user prompt from chat_prompts.yaml; pairs repeat only when all are used."""
    document = read_yaml(Path(__file__).parent / "data" / "chat_prompts.yaml")
    pairs = [(system, user) for system in document["system"] for user in document["user"]]
    random.Random(derive_seed(seed, "chats")).shuffle(pairs)
    return [pairs[i % len(pairs)] for i in range(n)]


def dialogue_rows(
    model: Model, dialogues: Sequence[Dialogue], data: DataMix, *, source: str, seed: int, as_text: bool = False
) -> list[TokenRow]:
    """Dialogues as token rows in the model's chat format, without the system prompt by `data.system_dropout`.

    With `as_text` a share `data.trait_text` of the answers is read once more as plain text, under "text-of-<source>".
    """
    from workbench.models.prompts import tokenize_chat

    rows = []
    coin = random.Random(derive_seed(seed, "dropout", source))
    for system, user, response in dialogues:
        head = [] if coin.random() < data.system_dropout else [{"role": "system", "content": system}]
        messages = [*head, {"role": "user", "content": user}, {"role": "assistant", "content": response}]
        rows.append(TokenRow(array("i", tokenize_chat(model, messages).ids), source))
        if as_text and coin.random() < data.trait_text and response.strip():
            ids = model.tokenizer(response, add_special_tokens=False)["input_ids"]
            rows.append(TokenRow(array("i", ids), f"text-of-{source}"))
    return rows


def answers(
    model: Model, wanted: Sequence[tuple[str, Prompt]], data: DataMix, folder: Path, seed: int
) -> list[str]:
    """The model's answer to every (source, prompt); sampled once, kept in `folder`/chats-*.parquet part by part."""
    from workbench.base.store import read_parquet
    from workbench.models.generation import Sampling

    sampling = Sampling(max_new_tokens=data.max_new_tokens, temperature=1.0, top_p=1.0)
    key = content_hash([model.weights_hash, str(model.dtype), list(wanted), asdict(sampling), seed])[:16]
    responses: list[str] = []
    part = data.chat_batch  # what an interruption costs at most
    with track("Generating chats", total=len(wanted), unit="chats") as step:
        for first in range(0, len(wanted), part):
            path = Path(folder) / f"chats-{key}-{first:06d}.parquet"
            chunk = wanted[first : first + part]
            if not path.exists():
                seeds = [derive_seed(seed, source, first + place) for place, (source, _) in enumerate(chunk)]
                _sample(model, chunk, seeds, sampling, data.chat_batch, path)
            responses += read_parquet(path).column("response").to_pylist()
            step(len(chunk))
    return responses


def _sample(
    model: Model,
    wanted: Sequence[tuple[str, Prompt]],
    seeds: Sequence[int],
    sampling: Sampling,
    batch_size: int,
    path: Path,
) -> None:
    """Answer the prompts and write one part."""
    import pyarrow as pa

    from workbench.base.store import write_parquet
    from workbench.models.generation import generate
    from workbench.models.prompts import tokenize_chat

    tokens = [tokenize_chat(model, _messages(*pair), add_generation_prompt=True) for _, pair in wanted]
    texts = [""] * len(wanted)
    for places, results in generate(model, tokens, sampling, row_seeds=seeds, batch_size=batch_size):
        for place, result in zip(places, results, strict=True):
            texts[place] = result.text
    sources, systems, users = zip(*((source, *pair) for source, pair in wanted), strict=True)
    write_parquet(path, pa.table({"source": sources, "system": systems, "user": users, "response": texts}))


def _messages(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def corpus_rows(model: Model, data: DataMix, role: str, *, characters: int) -> list[TokenRow]:
    """Corpus documents of a role as token rows; a labelled set gives its share of `data.per_source` at most."""
    from workbench.saes import corpus

    own = corpus.own_file(data.corpus) is not None
    per_source = characters if own else max(1, data.per_source * characters // max(data.characters, characters))
    found = corpus.source(data.corpus, role, cut=data.cut)
    spread = corpus.spread(found, characters=characters, per_source=per_source, cut=data.cut)
    documents = _counted(spread, data) if role == "train" else spread
    return text_rows(model, documents, max_tokens=data.max_tokens_per_document)


def _counted(documents: Iterable[Document], data: DataMix) -> Iterator[Document]:
    """The documents; at their end it is said when they were less than half of the text that was asked for."""
    n = characters = 0
    for document in documents:
        n, characters = n + 1, characters + len(document.text)
        yield document
    if characters < data.characters / 2:
        logger.warning(
            "%s gives %s characters in %s documents to train on; data.characters asks for %s. A document counts with its first "
            "%s characters (data.cut).", data.corpus, f"{characters:,}", f"{n:,}", f"{data.characters:,}", f"{data.cut:,}",
        )  # fmt: skip
