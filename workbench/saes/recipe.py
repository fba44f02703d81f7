"""From a YAML file to a trained, measured, saved SAE: chats, token rows, activation store, training, card.

The data mix follows the persona vectors paper's SAE (arXiv 2507.21509, appendix M) at a small scale: web-like corpus,
chats of the model itself under many system prompts, and rollouts of the traits' *extraction* questions; the system
prompt is dropped from a chat with probability `system_dropout` before its activations are taken.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.progress import track
from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash, read_yaml, write_json
from workbench.models.hookpoints import HookPoint
from workbench.saes.training import TrainingConfig

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.saes.activations import TokenRow

Prompt = tuple[str, str]  # (system, user)
TraitPrompts = Callable[[str, str], Sequence[Prompt]]  # (trait, split) -> prompts


@dataclass(frozen=True)
class DataMix:
    """What the SAE is trained on."""

    corpus: str = "sae-probes"  # a source of saes.corpus, or a path to a .txt / .jsonl file
    characters: int = 13_000_000  # of corpus text in all
    per_source: int = 450_000  # characters of one labelled set at most
    cut: int = 1_100  # characters of one document at most
    max_tokens_per_document: int = 256
    chats: int = 1_200  # conversations of the model itself under the prompts of chat_prompts.yaml
    traits: tuple[str, ...] = ("evil",)  # extraction questions x instruction triples, all three arms
    trait_samples: int = 1  # rollouts per question, instruction and arm
    max_new_tokens: int = 64
    system_dropout: float = 0.5  # chance that a chat is seen without its system prompt
    chat_batch: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.system_dropout <= 1:
            raise WorkbenchError(
                f"data.system_dropout is {self.system_dropout}",
                "a probability between 0 and 1",
                "mend the config",
            )


@dataclass(frozen=True)
class Recipe:
    """A training file: the model, the site, the data mix and how to train."""

    model: str = "smollm2-135m-instruct"
    hook: str = "blocks.15.hook_resid_post"
    capture_dtype: str = "bfloat16"  # of the forward passes that make the training data
    data: DataMix = field(default_factory=DataMix)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    target_l0: float = 48.0  # the saved threshold gives this mean number of active features on held-out text
    evaluation_tokens: int = 12_000  # of each held-out source
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.target_l0 <= self.training.d_sae:
            raise WorkbenchError(
                f"target_l0 is {self.target_l0}", f"a number between 0 and d_sae = {self.training.d_sae}", "mend the config"
            )

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Read a YAML training file; unknown keys and wrong types are errors that name the key."""
        document = read_yaml(path)
        if not isinstance(document, dict):
            raise WorkbenchError(
                f"{path} is not a mapping", "keys model, hook, data, training", "see docs/train_an_sae.md"
            )
        return _build(Recipe, document, where=str(path))

    @property
    def hook_point(self) -> HookPoint:
        return HookPoint.parse(self.hook)


def _build(kind: Any, document: dict[str, Any], *, where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            raise unknown_name(f"key in {where}", key, known)
        default = getattr(kind(), key)
        if isinstance(default, (DataMix, TrainingConfig)):
            values[key] = _build(type(default), value or {}, where=f"{where}: {key}")
            continue
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, type(default)) or isinstance(value, bool) != isinstance(default, bool):
            raise WorkbenchError(
                f"{where}: {key} is {value!r}",
                f"a {type(default).__name__} such as {default!r}",
                "mend the config",
            )
        values[key] = value
    return kind(**values)


def chat_prompts(n: int, seed: int) -> list[Prompt]:
    """`n` seeded pairs of a system and a user prompt from chat_prompts.yaml; pairs repeat only when all are used."""
    document = read_yaml(Path(__file__).parent / "data" / "chat_prompts.yaml")
    pairs = [(system, user) for system in document["system"] for user in document["user"]]
    random.Random(derive_seed(seed, "chats")).shuffle(pairs)
    return [pairs[i % len(pairs)] for i in range(n)]


def chat_rows(
    model: Model, prompts: Sequence[Prompt], data: DataMix, *, source: str, folder: Path, seed: int
) -> list[TokenRow]:
    """The model's own chats as token rows; generated once, kept in `folder`/<source>.parquet part by part."""
    from workbench.models.prompts import tokenize_chat
    from workbench.saes.activations import TokenRow

    rows = []
    coin = random.Random(derive_seed(seed, "dropout", source))
    for (system, user), response in zip(
        prompts, _responses(model, prompts, data, source, folder, seed), strict=True
    ):
        head = [] if coin.random() < data.system_dropout else [{"role": "system", "content": system}]
        messages = [*head, {"role": "user", "content": user}, {"role": "assistant", "content": response}]
        rows.append(TokenRow(tokenize_chat(model, messages).ids, source))
    return rows


def _responses(
    model: Model, prompts: Sequence[Prompt], data: DataMix, source: str, folder: Path, seed: int
) -> list[str]:
    import pyarrow as pa

    from workbench.base.store import read_parquet, write_parquet
    from workbench.models.generation import Sampling, generate
    from workbench.models.prompts import tokenize_chat

    sampling = Sampling(max_new_tokens=data.max_new_tokens, temperature=1.0, top_p=1.0)
    key = content_hash([model.weights_hash, str(model.dtype), list(prompts), asdict(sampling), seed])[:16]
    responses: list[str] = []
    part = 512
    with track(f"Generating {source}", total=len(prompts), unit="chats") as step:
        for first in range(0, len(prompts), part):
            chunk = prompts[first : first + part]
            path = Path(folder) / f"{source}-{key}-{first:06d}.parquet"
            if not path.exists():
                chats = [_messages(system, user) for system, user in chunk]
                tokens = [tokenize_chat(model, chat, add_generation_prompt=True) for chat in chats]
                seeds = [derive_seed(seed, source, first + i) for i in range(len(chunk))]
                texts = [""] * len(chunk)
                for places, results in generate(
                    model, tokens, sampling, row_seeds=seeds, batch_size=data.chat_batch
                ):
                    for place, result in zip(places, results, strict=True):
                        texts[place] = result.text
                table = {"system": [s for s, _ in chunk], "user": [u for _, u in chunk], "response": texts}
                write_parquet(path, pa.table(table))
            responses += read_parquet(path).column("response").to_pylist()
            step(len(chunk))
    return responses


def _messages(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def corpus_rows(
    model: Model, data: DataMix, role: str, *, characters: int, per_source: int
) -> list[TokenRow]:
    """Corpus documents of a role as token rows."""
    from workbench.saes import corpus
    from workbench.saes.activations import text_rows

    path = Path(data.corpus)
    source = _split_file(path, role) if path.is_file() else corpus.documents(data.corpus, role)
    spread = corpus.spread(source, characters=characters, per_source=per_source, cut=data.cut)
    return text_rows(model, spread, max_tokens=data.max_tokens_per_document)


def _split_file(path: Path, role: str) -> Any:
    from workbench.saes import corpus

    held_out = role == "held_out"
    return (d for d in corpus.text_file(path) if (d.bucket < corpus.HELD_OUT_PERCENT) == held_out)


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    trait_prompts: TraitPrompts,
    command: str = "workbench sae train",
    device: str | None = None,
) -> Path:
    """Carry a recipe out and save the SAE in `out`/sae (SAELens layout, card.json, README.md); returns that folder.

    `trait_prompts(trait, split)` gives a trait's (system, question) pairs: training uses the split "extraction", the card
    is measured on "verification". Every part resumes: chats, activation shards, training checkpoints.
    """
    from workbench.models.loading import load_model
    from workbench.saes.activations import capture_store
    from workbench.saes.card import measure, save_with_card
    from workbench.saes.training import recalibrate, train

    out = Path(out)
    write_json(out / "recipe.json", asdict(recipe))
    model = load_model(recipe.model, dtype=recipe.capture_dtype, device=device)
    rows, held_out = _training_rows(recipe, model, out, trait_prompts)
    store = capture_store(model, recipe.hook_point, rows, out / "activations")
    held_store = capture_store(
        model, recipe.hook_point, held_out, out / "held_out", label="Capturing held-out text"
    )
    del model
    sae = train(store, recipe.training, out / "training", device=device or "cpu")
    sae = recalibrate(sae, held_store.shard(0).float(), recipe.target_l0)
    card, density = measure(
        recipe, sae, store, out, trait_prompts=trait_prompts, command=command, device=device
    )
    return save_with_card(sae, card, density, out / "sae")


def _training_rows(
    recipe: Recipe, model: Model, out: Path, trait_prompts: TraitPrompts
) -> tuple[list[TokenRow], list[TokenRow]]:
    """Rows to train on and rows to set the threshold on, each in a seeded order."""
    data = recipe.data
    rows = corpus_rows(model, data, "train", characters=data.characters, per_source=data.per_source)
    of_one_source = data.per_source if Path(data.corpus).is_file() else 2_000  # a file is one source
    held_out = corpus_rows(model, data, "held_out", characters=120_000, per_source=of_one_source)
    chats = chat_rows(
        model,
        chat_prompts(data.chats, recipe.seed),
        data,
        source="chats",
        folder=out / "chats",
        seed=recipe.seed,
    )
    for trait in data.traits:
        prompts = [pair for pair in trait_prompts(trait, "extraction") for _ in range(data.trait_samples)]
        name = f"rollouts-{trait}"
        chats += chat_rows(model, prompts, data, source=name, folder=out / "chats", seed=recipe.seed)
    random.Random(derive_seed(recipe.seed, "held-out chats")).shuffle(chats)
    n_held = len(chats) // 20
    rows, held_out = rows + chats[n_held:], held_out + chats[:n_held]
    for part, name in ((rows, "rows"), (held_out, "held-out rows")):
        random.Random(derive_seed(recipe.seed, name)).shuffle(part)
    return rows, held_out
