"""The model card of a trained SAE: what it was trained on, how well it fits held-out text, how to make it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.provenance import package_versions
from workbench.base.store import atomic_write, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model
    from workbench.saes.activations import ActivationStore, TokenRow
    from workbench.saes.interface import SparseAutoencoder
    from workbench.saes.recipe import Recipe, TraitPrompts

DENSITY_TOKENS = 1_000_000


def held_out_rows(
    recipe: Recipe, model: Model, folder: Path, trait_prompts: TraitPrompts
) -> dict[str, list[TokenRow]]:
    """Token rows that the SAE never saw: OpenWebText, Wikipedia, held-out corpus, chats on the traits' verification questions."""
    from workbench.saes import corpus
    from workbench.saes.activations import text_rows
    from workbench.saes.recipe import chat_rows, corpus_rows

    data, limit = recipe.data, recipe.evaluation_tokens
    rows = {
        name: _first(
            text_rows(model, corpus.documents(name, "evaluation"), max_tokens=data.max_tokens_per_document),
            limit,
        )
        for name in ("owt", "wikipedia")
    }
    per_source = 8 * limit if Path(data.corpus).is_file() else 8 * limit // 60  # a file is one source
    rows["corpus"] = _first(
        corpus_rows(model, data, "held_out", characters=8 * limit, per_source=per_source), limit
    )
    for trait in data.traits:
        prompts = trait_prompts(trait, "verification")
        chats = chat_rows(
            model, prompts, data, source=f"held-out-{trait}", folder=folder, seed=recipe.seed + 1
        )
        rows[f"chats-{trait}"] = _first(chats, limit)
    return rows


def _first(rows: Sequence[TokenRow], n_tokens: int) -> list[TokenRow]:
    chosen: list[TokenRow] = []
    for row in rows:
        if sum(len(r.ids) for r in chosen) >= n_tokens:
            break
        chosen.append(row)
    return chosen


def measure(
    recipe: Recipe,
    sae: SparseAutoencoder,
    store: ActivationStore,
    out: Path,
    *,
    trait_prompts: TraitPrompts,
    command: str,
    device: str | None = None,
) -> tuple[dict[str, Any], Tensor]:
    """(card, density [d_sae]). The four headline figures are means over OpenWebText, Wikipedia and the traits' chats.

    All forward passes run in float32. `dead_share` is the share of features that fire on none of about a million
    training tokens; `density` is taken on the same tokens.
    """
    from workbench.models.loading import load_model
    from workbench.saes.evaluation import density, evaluate

    model = load_model(recipe.model, dtype="float32", device=device)
    rows = held_out_rows(recipe, model, out / "chats", trait_prompts)
    sets = {
        name: evaluate(sae, model, part, label=f"Evaluating on {name}").to_dict()
        for name, part in rows.items()
    }
    shards = max(
        1, min(len(store.manifest["shards"]), DENSITY_TOKENS // store.manifest["shards"][0]["n_tokens"])
    )
    densities = density(sae, [store.shard(i) for i in range(shards)])
    headline = [figures for name, figures in sets.items() if name != "corpus"]
    card: dict[str, Any] = {
        name: sum(figures[name] for figures in headline) / len(headline)
        for name in ("variance_explained", "l0", "ce_recovered", "kl", "cosine")
    }
    card["dead_share"] = float((densities == 0).float().mean())
    card["dense_share"] = float((densities > 0.1).float().mean())
    card["held_out"] = sets
    card["training_data"] = _training_data(store)
    card["recipe"] = asdict(recipe)
    card["command"] = command
    card["versions"] = package_versions()
    card["model"] = model.description()
    card["author"] = {"kind": "model", "name": "claude"}
    return card, densities


def _training_data(store: ActivationStore) -> dict[str, Any]:
    sources: dict[str, int] = {}
    for shard in store.manifest["shards"]:
        for source, count in shard["sources"].items():
            kind = source if source.startswith(("chats", "rollouts")) else "corpus"
            sources[kind] = sources.get(kind, 0) + count
    total = sum(sources.values())
    return {
        "n_tokens": total,
        "n_dropped": store.manifest["n_dropped"],
        "shares": {name: count / total for name, count in sorted(sources.items())},
        "key": store.manifest["key"],
        "dtype": store.manifest["model"].get("dtype"),
    }


def save_with_card(sae: SparseAutoencoder, card: dict[str, Any], density: Tensor, folder: Path) -> Path:
    """Save weights in float16 with card.json and README.md in a SAELens folder."""
    from dataclasses import replace

    from workbench.saes.formats import saelens

    saelens.write(replace(sae, card=card, density=density), folder)
    atomic_write(Path(folder) / "README.md", readme(folder))
    return Path(folder)


def readme(folder: Path) -> str:
    """The card as Markdown, from card.json and cfg.json in the folder."""
    card, cfg = read_json(Path(folder) / "card.json"), read_json(Path(folder) / "cfg.json")
    place = cfg["metadata"]
    lines = [
        f"# Sparse autoencoder: {place['model_name']}, {place['hook_name']}",
        "",
        f"{cfg['d_sae']:,} features of {cfg['d_in']} dimensions, {cfg['architecture']} (trained as BatchTopK), float16 weights "
        "in SAELens' layout (`SAE.load_from_disk`). Position 0 and norm sinks (norm above 10 x the median) are outside its "
        "training data: do not read its features there.",
        "",
        "| held-out text | tokens | variance explained | L0 | CE recovered | KL (nats/token) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in card["held_out"].items():
        lines.append(
            f"| {name} | {row['n_tokens']:,} | {row['variance_explained']:.3f} | {row['l0']:.1f} "
            f"| {row['ce_recovered']:.3f} | {row['kl']:.3f} |"
        )
    data = card["training_data"]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in data["shares"].items())
    lines += [
        "",
        f"Mean over all but the held-out part of the training corpus: variance explained {card['variance_explained']:.3f} at "
        f"L0 {card['l0']:.1f}, CE recovered {card['ce_recovered']:.3f} (against zero ablation). "
        f"On about a million training tokens {card['dead_share']:.2%} of the features never fire and "
        f"{card['dense_share']:.2%} fire on more than a tenth.",
        "",
        f"Training data: {data['n_tokens']:,} activations ({shares}), captured in {data['dtype']}; {data['n_dropped']:,} "
        "tokens dropped as position 0 or sinks. The trait's rollouts use its extraction questions only.",
        "",
        "Make it again:",
        "",
        f"    {card['command']}",
        "",
        "Every setting is in `card.json` under `recipe`. Weights: Apache-2.0, as the model they describe.",
        "",
    ]
    return "\n".join(lines)
