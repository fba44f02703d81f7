"""A recipe carried out: rows, activations, training, thresholds, saved SAEs. Every part resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.store import write_json
from workbench.models.hookpoints import HookPoint
from workbench.saes.activations import Activations, JoinedActivations
from workbench.saes.capturing import CaptureOptions, capture_held, capture_stores
from workbench.saes.mixture import Mixture, TraitPrompts, TraitRollouts, mixture
from workbench.saes.recipe import WEIGHTS, Recipe, SaePlan

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.saes.token_rows import TokenRow

HELD_OUT_TOKENS = 65_536
"""Held-out activations that thresholds are set on."""


@dataclass(frozen=True)
class Pass:
    """SAEs that are trained together on one site's activations: a task of its own, wherever it runs."""

    recipe: Recipe
    plans: tuple[SaePlan, ...]
    data: Activations
    held_out: Activations
    out: Path
    device: str
    command: str


Runner = Callable[[Callable[[Pass], dict[str, Path]], Sequence[Pass]], Iterable[dict[str, Path]]]
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
    carries the passes out (`workbench.cluster.on_ray` does so as tasks of a cluster).
    """

    from workbench.models.loading import load_model
    from workbench.models.randomised import with_shuffled_weights

    out = Path(out)
    write_json(out / "recipe.json", recipe.to_json())
    model = load_model(recipe.model, dtype=recipe.capture_dtype, device=device)
    rows = mixture(recipe, model, out / "chats", trait_prompts, rollouts)
    folders: dict[str, Path] = {}
    for weights in WEIGHTS:
        plans = recipe.plans_on(weights)
        if plans:
            model = with_shuffled_weights(model, seed=recipe.seed) if weights == "shuffled" else model
            stores = _captured(recipe, plans, model, rows, out / "activations" / weights)
            on, passes = str(model.device), _passes(plans, saes_per_pass)
            tasks = [Pass(recipe, one, _data(stores, one[0]), _held_out(stores, one[0]), out, on, command) for one in passes]
            for saved in run(carry_out, tasks):
                folders |= saved
    return folders


def _captured(
    recipe: Recipe, plans: Sequence[SaePlan], model: Model, rows: Mixture, folder: Path
) -> dict[str, Mapping[HookPoint, Activations]]:
    """The activations of every kind of rows at every site."""
    data = recipe.data
    options = CaptureOptions(dtype=data.stored_dtype, keep_special=data.keep_special, batch_tokens=data.batch_tokens)
    hooks = [HookPoint.parse(hook) for hook in dict.fromkeys(plan.hook for plan in plans)]

    def captured(kind: str, part: Sequence[TokenRow]) -> Mapping[HookPoint, Activations]:
        label = f"Capturing {kind.replace('_', '-')} text"
        if recipe.activations == "memory":
            return capture_held(model, hooks, part, options, label=label)
        return capture_stores(model, hooks, part, folder / kind, options, label=label)

    kinds = {"corpus": rows.corpus, "chats": rows.chats, "held_out": rows.held_out}
    return {kind: captured(kind, part) for kind, part in kinds.items() if part}


def carry_out(task: Pass) -> dict[str, Path]:
    """Train, calibrate and save the SAEs that read the same batches."""
    from workbench.saes.formats import saelens
    from workbench.saes.training import recalibrate, train_together
    from workbench.saes.training_card import DENSITY_TOKENS, training_card

    folders = {plan.name: task.out / "training" / plan.name for plan in task.plans}
    configs = {plan.name: plan.training for plan in task.plans}
    saes = train_together(task.data, configs, folders, seed=task.recipe.seed, device=task.device)
    held_out, seen = task.held_out.sample(HELD_OUT_TOKENS), task.data.sample(DENSITY_TOKENS)
    saved = {}
    for plan in task.plans:
        sae = saelens.rounded(saes[plan.name], plan.stored_dtype)
        sae = recalibrate(sae, held_out, plan.target_l0)
        card, density = training_card(task.recipe, plan, sae, task.data, seen, held_out, task.command)
        sae = replace(sae.to("cpu"), id=plan.name, card=card, density=density)
        saved[plan.name] = saelens.write(sae, task.out / plan.name, dtype=plan.stored_dtype)
    return saved


def _data(stores: Mapping[str, Mapping[HookPoint, Activations]], plan: SaePlan) -> Activations:
    kinds = ("corpus",) if plan.data == "corpus" else ("corpus", "chats")
    return JoinedActivations([stores[kind][HookPoint.parse(plan.hook)] for kind in kinds if kind in stores])


def _held_out(stores: Mapping[str, Mapping[HookPoint, Activations]], plan: SaePlan) -> Activations:
    return stores["held_out"][HookPoint.parse(plan.hook)]


def _passes(plans: Sequence[SaePlan], most: int | None) -> list[tuple[SaePlan, ...]]:
    """The plans that read the same batches, together, at most so many."""
    together: dict[Any, list[SaePlan]] = {}
    for plan in plans:
        together.setdefault((plan.hook, plan.data, plan.training.batch_size), []).append(plan)
    step = most or len(plans)
    return [tuple(part[i : i + step]) for part in together.values() for i in range(0, len(part), step)]
