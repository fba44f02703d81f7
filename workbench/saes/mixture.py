"""The rows of a data mix: corpus documents, the model's own chats, the traits' rollouts, and what is held out of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.progress import track
from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash, read_yaml
from workbench.saes.recipe import DataMix, Recipe
from workbench.saes.token_rows import TokenRow, text_rows

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.models.sampling import Sampling

Prompt = tuple[str, str]  # (system, user)
Dialogue = tuple[str, str, str]  # (system, user, assistant)
TraitPrompts = Callable[[str, str], Sequence[Prompt]]  # (trait, split) -> prompts
TraitRollouts = Callable[[str], Sequence[Dialogue]]  # trait -> what was sampled before on its extraction questions
PART = 512
"""Chats in one file: what an interruption costs at most."""


@dataclass(frozen=True)
class Mixture:
    """Token rows by kind, each in a seeded order."""

    corpus: list[TokenRow]
    chats: list[TokenRow]
    held_out: list[TokenRow]


def mixture(
    recipe: Recipe,
    model: Model,
    folder: Path,
    trait_prompts: TraitPrompts,
    rollouts: TraitRollouts | None = None,
) -> Mixture:
    """The rows to train on and the rows to set thresholds on; chats are sampled once and kept in `folder`.

    Held out: one document in twenty by the hash of its text, one chat in twenty by the hash of its prompts. `rollouts`
    gives what an extraction sampled on the traits' extraction questions; without it they are sampled here.
    """
    data = recipe.data
    corpus = corpus_rows(model, data, "train", characters=data.characters, per_source=data.per_source)
    of_one_source = data.per_source if Path(data.corpus).is_file() else 2_000  # a file is one source
    held_out = corpus_rows(model, data, "held_out", characters=120_000, per_source=of_one_source)
    chats: list[TokenRow] = []
    for source, dialogues in _conversations(recipe, model, folder, trait_prompts, rollouts):
        train = [one for one in dialogues if not _held_out(one[:2])]
        other = [one for one in dialogues if _held_out(one[:2])]
        of_trait = source.startswith("rollouts-")
        chats += dialogue_rows(model, train, data, source=source, seed=recipe.seed, as_text=of_trait)
        held_out += dialogue_rows(model, other, data, source=source, seed=recipe.seed)
    for part, name in ((corpus, "rows"), (chats, "chats"), (held_out, "held-out rows")):
        random.Random(derive_seed(recipe.seed, name)).shuffle(part)
    return Mixture(corpus, chats, held_out)


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


def _held_out(pair: Prompt) -> bool:
    from workbench.saes.corpus import HELD_OUT_PERCENT, Document

    return Document.of("\n".join(pair), "chat").bucket < HELD_OUT_PERCENT


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
        rows.append(TokenRow(tokenize_chat(model, messages).ids, source))
        if as_text and coin.random() < data.trait_text and response.strip():
            ids = model.tokenizer(response, add_special_tokens=False)["input_ids"]
            rows.append(TokenRow(tuple(ids), f"text-of-{source}"))
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
    part = max(PART, data.chat_batch)
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
    sources, systems, users = ([row[i] for row in _flat(wanted)] for i in range(3))
    write_parquet(path, pa.table({"source": sources, "system": systems, "user": users, "response": texts}))


def _flat(wanted: Sequence[tuple[str, Prompt]]) -> list[tuple[str, str, str]]:
    return [(source, *pair) for source, pair in wanted]


def _messages(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def corpus_rows(
    model: Model, data: DataMix, role: str, *, characters: int, per_source: int
) -> list[TokenRow]:
    """Corpus documents of a role as token rows."""
    from workbench.saes import corpus

    path = Path(data.corpus)
    source = _split_file(path, role) if path.is_file() else corpus.documents(data.corpus, role)
    spread = corpus.spread(source, characters=characters, per_source=per_source, cut=data.cut)
    return text_rows(model, spread, max_tokens=data.max_tokens_per_document)


def _split_file(path: Path, role: str) -> Any:
    from workbench.saes import corpus

    held_out = role == "held_out"
    return (d for d in corpus.text_file(path) if (d.bucket < corpus.HELD_OUT_PERCENT) == held_out)
