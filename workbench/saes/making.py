"""A recipe carried out: rows, activations, training, thresholds, saved SAEs. Every part resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash, read_json, write_json
from workbench.models.hookpoints import HookPoint
from workbench.saes.activations import Activations
from workbench.saes.capturing import CaptureOptions, capture_held, capture_key, capture_stores
from workbench.saes.mixture import Mixture, TraitPrompts, TraitRollouts, mixture
from workbench.saes.recipe import WEIGHTS, Recipe, SaePlan

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model
    from workbench.saes.interface import SparseAutoencoder
    from workbench.saes.token_rows import TokenRow
    from workbench.saes.training_card import HeldOut

HELD_OUT_TOKENS = 65_536
"""Held-out activations that thresholds are set on."""


@dataclass(frozen=True)
class Pass:
    """SAEs that are trained together on one site's activations: a task of its own, wherever it runs."""

    recipe: Recipe
    plans: tuple[SaePlan, ...]
    data: Activations
    held_out: Mapping[str, Activations]
    out: Path
    device: str
    command: str


@dataclass(frozen=True)
class Outcome:
    """Where the SAEs of a pass were saved, and why the others were not, by name."""

    saved: Mapping[str, Path]
    failed: Mapping[str, WorkbenchError]


Runner = Callable[[Callable[[Pass], Outcome], Sequence[Pass]], Iterable[Outcome]]
"""Runs a function on every pass, like `map`: here, or on the machines of a cluster."""


def make_saes(
    recipe: Recipe,
    out: Path,
    *,
    trait_prompts: TraitPrompts,
    rollouts: TraitRollouts | None = None,
    command: str = "workbench sae train",
    device: str | None = None,
    run: Runner = map,
    saes_per_pass: int | None = None,
) -> dict[str, Path]:
    """Train the recipe's SAEs and save each in `out`/<name> (SAELens layout with card.json): {name: folder}.

    `trait_prompts(trait, split)` gives a trait's (system, question) pairs; only the split "extraction" is asked for.
    `rollouts(trait)`, when given, is what was sampled on them before.
    SAEs of one site, share of the data and batch size are trained in one pass, at most `saes_per_pass` of them; `run`
    carries the passes out (`workbench.cluster.on_ray` does so as tasks of a cluster). When the training of some diverges, the
    others are saved before the error that names those.
    """
    from workbench.saes.training import together

    out = Path(out)
    folders: dict[str, Path] = {}
    failed: dict[str, WorkbenchError] = {}
    for weights in WEIGHTS:
        if recipe.plans_on(weights):
            # Not bound to a name: activations that are held in memory are gone before the next ones are captured.
            for done in run(carry_out, _tasks(recipe, weights, out, trait_prompts, rollouts, device, command, saes_per_pass)):
                folders |= done.saved
                failed |= done.failed
    write_json(out / "recipe.json", recipe.to_json())
    if failed:
        raise together(failed)
    return folders


def _tasks(
    recipe: Recipe, weights: str, out: Path, trait_prompts: TraitPrompts, rollouts: TraitRollouts | None,
    device: str | None, command: str, saes_per_pass: int | None,
) -> list[Pass]:  # fmt: skip
    """The passes over the activations of the model as it is, or with shuffled weights; neither model nor text stay in memory."""
    from workbench.models.loading import load_model
    from workbench.models.randomised import with_shuffled_weights

    plans = recipe.plans_on(weights)
    model = load_model(recipe.model, dtype=recipe.capture_dtype, device=device)
    for plan in plans:
        check_block(plan, model.name, model.n_blocks)
    rows = mixture(recipe, model, out / "chats", trait_prompts, rollouts)
    model = with_shuffled_weights(model, seed=recipe.seed) if weights == "shuffled" else model
    stores = _captured(recipe, plans, model, rows, out / "activations")
    tasks = []
    for together in passes(plans, saes_per_pass):
        hook, corpus = HookPoint.parse(together[0].hook), together[0].data == "corpus"
        data = stores["train"][hook]
        held_out = {kind: stores[kind][hook] for kind in rows.held_out if kind == "corpus" or not corpus}
        tasks.append(Pass(recipe, together, data.of_corpus() if corpus else data, held_out, out, str(model.device), command))
    return tasks


def check_block(plan: SaePlan, model: str, n_blocks: int) -> None:
    """Refuse a site behind the model's last block."""
    if HookPoint.parse(plan.hook).block >= n_blocks:
        raise WorkbenchError(
            f"SAE {plan.name} is to read {plan.hook}, but {model} has {n_blocks} blocks",
            f"a block from 0 to {n_blocks - 1}",
            "mend hook in the config",
        )


def _captured(
    recipe: Recipe, plans: Sequence[SaePlan], model: Model, rows: Mixture, folder: Path
) -> dict[str, Mapping[HookPoint, Any]]:
    """The activations of every part of the rows at every site; a folder per text, model and set of sites."""
    data = recipe.data
    options = CaptureOptions(dtype=data.stored_dtype, keep_special=data.keep_special, batch_tokens=data.batch_tokens)
    hooks = [HookPoint.parse(hook) for hook in dict.fromkeys(plan.hook for plan in plans)]

    def captured(part: str, members: Sequence[TokenRow]) -> Mapping[HookPoint, Any]:
        label = "Capturing activations" if part == "train" else f"Capturing held-out {part}"
        if recipe.activations == "memory":
            return capture_held(model, hooks, members, options, label=label)
        place = folder / f"{part}-{capture_key(model, hooks, members, options)[:12]}"
        return capture_stores(model, hooks, members, place, options, label=label)

    return {part: captured(part, members) for part, members in {"train": rows.train, **rows.held_out}.items()}


def carry_out(task: Pass) -> Outcome:
    """Train, calibrate and save the SAEs that read the same batches; what is saved already stays as it is, and one that fails
    leaves the others alone."""
    from workbench.saes.trainer import training_key
    from workbench.saes.training import train_each
    from workbench.saes.training_card import DENSITY_TOKENS, in_proportion

    seed = task.recipe.seed
    keys = {plan.name: content_hash([training_key(task.data, plan.training, seed), plan.target_l0, plan.stored_dtype])
            for plan in task.plans}  # fmt: skip
    left = [plan for plan in task.plans if not _is_saved(task.out / plan.name, keys[plan.name])]
    saved = {plan.name: task.out / plan.name for plan in task.plans}
    if not left:
        return Outcome(saved, {})
    folders = {plan.name: task.out / "training" / plan.name for plan in left}
    configs = {plan.name: plan.training for plan in left}
    saes, failed = train_each(task.data, configs, folders, seed=seed, device=task.device)
    held_out, seen = in_proportion(task.data, task.held_out, HELD_OUT_TOKENS), task.data.sample(DENSITY_TOKENS)
    for plan in left:
        if plan.name in failed:
            continue
        try:
            _save(task, plan, saes[plan.name], keys[plan.name], seen, held_out)
        except WorkbenchError as error:
            failed[plan.name] = error
    return Outcome({name: folder for name, folder in saved.items() if name not in failed}, failed)


def _save(task: Pass, plan: SaePlan, sae: SparseAutoencoder, key: str, seen: Tensor, held_out: HeldOut) -> None:
    """Calibrate a trained SAE and save it; the figures of its card are those of the SAE that is read back."""
    from workbench.saes.formats import saelens
    from workbench.saes.training import recalibrate
    from workbench.saes.training_card import reconstruction, training_card

    sae = saelens.rounded(sae, plan.stored_dtype)
    sae = saelens.rounded(recalibrate(sae, held_out.tokens, plan.target_l0), plan.stored_dtype)  # the new threshold too
    if (found := reconstruction(sae, held_out.tokens)["variance_explained"]) < 0:
        raise WorkbenchError(
            f"{plan.name} reconstructs held-out activations worse than their mean does (variance explained {found:.3g})",
            "a training that converged",
            f"lower training.learning_rate and delete {task.out / 'training' / plan.name}; this SAE was not saved",
        )
    card, density = training_card(task.recipe, plan, sae, task.data, seen, held_out, task.command)
    sae = replace(sae.to("cpu"), id=plan.name, card={**card, "training_key": key}, density=density)
    saelens.write(sae, task.out / plan.name, dtype=plan.stored_dtype)


def _is_saved(folder: Path, key: str) -> bool:
    """Whether the folder holds this very SAE: its card may say more by now than training knew."""
    whole = all((folder / name).is_file() for name in ("cfg.json", "card.json", "sae_weights.safetensors"))
    if not whole:
        return False
    card = read_json(folder / "card.json")
    if not isinstance(card, dict):
        raise WorkbenchError(
            f"{folder / 'card.json'} holds {str(card)[:80]}",
            "a mapping, the card of the SAE beside it",
            f"delete {folder}: the same command saves the SAE again",
        )
    return card.get("training_key") == key


def passes(plans: Sequence[SaePlan], most: int | None = None) -> list[tuple[SaePlan, ...]]:
    """The plans that read the same batches, together, at most so many."""
    together: dict[Any, list[SaePlan]] = {}
    for plan in plans:
        together.setdefault((plan.hook, plan.data, plan.training.batch_size), []).append(plan)
    step = most or len(plans)
    return [tuple(part[i : i + step]) for part in together.values() for i in range(0, len(part), step)]
