"""What the studies of finished vectors take: passes and tokens, with seconds where the model's speed can be known.

Counted are the passes through the model, of 2,048 tokens each; a push runs only the blocks behind the hook, over the
replies alone, and costs that share. Bootstraps, fits on the rows and the check of every push against whole passes come on
top: the seconds are a lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plan import (
    FORWARD_TOKENS_PER_SECOND,
    PAIR_TOKENS,
    PASS_TOKENS,
    PROMPT_TOKENS,
    Prober,
    counted_sampling,
    size_scale,
)

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.models.probe import Probe

    from ..config import JobConfig

SEGMENT_TOKENS = 32  # of 24 words
PROBED_ROWS, PROBED_WIDTH = 32, 64
LATER_BLOCKS = 0.5  # behind a hook that is chosen only later
MEASURED = "a lower bound, of the passes alone, from a miniature of the model, measured on this machine just now"
ESTIMATED = "a lower bound, of the passes alone, from speeds measured with the default model on two cores"
COUNTED = "a count of the passes and tokens alone; their time needs the model's config.json and tokenizer on this machine"


@dataclass(frozen=True)
class Pace:
    """How fast a model reads here: seconds per token through its blocks, and through the unembedding; None = unknown."""

    read: float | None
    unembed: float
    n_blocks: int | None
    note: str
    probe: Probe | None

    @classmethod
    def of(cls, config: JobConfig, prober: Prober | None = None) -> Pace:
        """From a miniature where the configuration is at hand, else from the size of the weights."""
        probe = (prober or Prober()).probe(config)
        if probe is None:
            scale = size_scale(config.model)
            return cls(None, 0.0, None, COUNTED, None) if scale is None else cls(
                scale / FORWARD_TOKENS_PER_SECOND, 0.0, None, ESTIMATED, None)  # fmt: skip
        read = probe.capture_seconds(PROBED_ROWS, PROBED_WIDTH) / (PROBED_ROWS * PROBED_WIDTH)
        words = probe.shape.vocab_size * probe.shape.d_model  # the logits cost what so many weights of the blocks do
        return cls(read, read * words / max(words, probe.shape.n_parameters - words), probe.shape.n_blocks, MEASURED, probe)

    def reading(self, step: str, n_tokens: int) -> dict[str, Any]:
        """A step that reads so many tokens once."""
        return _step(step, n_tokens, None if self.read is None else self.read * n_tokens)

    def pushing(self, step: str, pairs: Sequence[Any], n_pushes: int, block: int | None) -> dict[str, Any]:
        """A step that reads the replies of `pairs` once and again under so many pushes behind `block` (None: chosen later)."""
        prompts, replies = map(sum, zip(*(self._lengths(pair) for pair in pairs), strict=True)) if pairs else (0, 0)
        later = LATER_BLOCKS if block is None or self.n_blocks is None else 1 - (block + 1) / self.n_blocks
        pushed = n_pushes * replies
        seconds = None
        if self.read is not None:
            seconds = self.read * (prompts + replies + later * pushed) + self.unembed * (replies + pushed)
        return _step(step, prompts + replies + pushed, seconds)

    def _lengths(self, pair: Any) -> tuple[int, int]:
        """(tokens of both prompts, tokens of both replies)."""
        if self.probe is None:
            return 2 * PROMPT_TOKENS, 2 * PAIR_TOKENS
        tokenizer: Any = self.probe.model.tokenizer
        prompt, trait, opposite = (len(tokenizer(text)["input_ids"]) for text in (pair.prompt, pair.trait, pair.opposite))
        return 2 * prompt, trait + opposite


def _step(step: str, n_tokens: int, seconds: float | None) -> dict[str, Any]:
    return {"step": step, "n_passes": -(-n_tokens // PASS_TOKENS), "n_tokens": n_tokens, "seconds": seconds}


def _plan(what: str, steps: list[dict[str, Any]], folder: Path, note: str) -> dict[str, Any]:
    seconds = [step["seconds"] for step in steps]
    known = [value for value in seconds if value is not None]
    totals = {name: sum(step[name] for step in steps) for name in ("n_passes", "n_tokens")}
    return {"what": what, "steps": steps, "seconds": sum(known) if len(known) == len(seconds) else None, **totals,
            "folder": str(folder), "note": note}  # fmt: skip


def layers_plan(config: JobConfig, trait: Any, hooks: Sequence[HookPoint], folder: Path) -> dict[str, Any]:
    """The plan of `vectors layers`: one push either way at every block output."""
    from workbench.models.hookpoints import RESIDUAL_POST

    pace, pairs = Pace.of(config), _select(trait)
    steps = [
        pace.pushing(f"push along the vector at {hook} on the select pairs", pairs, 2, hook.block)
        for hook in hooks
        if hook.site == RESIDUAL_POST
    ]
    return _plan(f"both ways to choose a block for {trait.name}", steps, folder, pace.note)


def compare_plan(
    config: JobConfig, trait: Any, candidates: Sequence[Any], vector: Any, hook: HookPoint, folder: Path
) -> dict[str, Any]:
    """The plan of `vectors compare`: rows read where they were not kept, and every direction pushed to both doses."""
    from workbench.personas.comparison import N_RANDOM
    from workbench.personas.effects import DOSES
    from workbench.personas.methods import DETECTORS
    from workbench.personas.positions import POSITIONS

    pace, rows = Pace.of(config), vector.rows
    rows = rows[rows["arm"] != "neutral"]
    extraction, verification = (int((rows["split"] == split).sum()) for split in ("extraction", "verification"))
    width = PROMPT_TOKENS + config.max_new_tokens
    kept = (hook, POSITIONS[0])
    places = dict.fromkeys((one.hook, one.position) for one in candidates)
    steps = [pace.reading(f"read {position} at {at}", extraction * width) for at, position in places if (at, position) != kept]
    others = [at for at in dict.fromkeys(one.hook for one in candidates) if at != hook]
    steps += [pace.reading(f"read the verification rows at {at}", verification * width) for at in others]
    n = len(candidates) + sum(one.method in DETECTORS for one in candidates)
    n += N_RANDOM * len({one.hook.block for one in candidates})
    what = f"push {n} directions at doses {', '.join(map(str, DOSES))}, either way, on the select pairs"
    steps.append(pace.pushing(what, _select(trait), 2 * len(DOSES) * n, hook.block))
    return _plan(f"{len(candidates)} ways to make a vector of {trait.name}", steps, folder, pace.note)


def audit_plan(
    config: JobConfig, trait: Any, block: int, n_features: int, n_controls: int, folder: Path
) -> dict[str, Any]:
    """The plan of `audit` without sampled answers: pushes of features and controls, features put back, the first k together."""
    from workbench.decomposition.causal.audit import DOSES, N_MIXTURES, SIZES

    pace, select = Pace.of(config), _select(trait)
    sealed = [pair for pair in (*trait.contrast_pairs, *trait.control_pairs) if pair.split == "sealed"]
    contrast = [pair for pair in sealed if pair.kind == "contrast"]
    steps = [
        pace.pushing(f"push {n_features} features, both ways", sealed, 2 * n_features, block),
        pace.pushing(f"push {n_controls} controls, both ways", contrast, 2 * n_controls, block),
        pace.pushing("put every feature back", contrast, n_features + 4, block),
        pace.pushing(f"push the first {', '.join(map(str, SIZES))} features together", select, 2 * (len(SIZES) + 1), block),
        pace.pushing("push the vector, its parts and mixtures", sealed, 2 * (2 * len(DOSES) + 8 + N_MIXTURES), block),
    ]
    return _plan(f"audit of {trait.name}", steps, folder, pace.note)


def transfer_plan(
    source: JobConfig, target: JobConfig, traits: Sequence[Any], *, n_segments: int, without_placebos: Sequence[JobConfig],
    folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """The plan of `transfer`: segments through both models, placebos where there are none, vectors pushed in the target."""
    from workbench.personas.transfer_study import N_PUSHED

    paces = {side.model: Pace.of(side) for side in (source, target)}
    steps = [_placebo_step(side) for side in without_placebos]
    steps += [
        pace.reading(f"read {n_segments:,} neutral segments at every block of {model}", n_segments * SEGMENT_TOKENS)
        for model, pace in paces.items()
    ]
    pace = paces[target.model]
    for trait in traits:
        # Counted as if all met the control pairs too; random and placebo directions meet the contrasts alone.
        pairs = [pair for pair in (*trait.contrast_pairs, *trait.control_pairs) if pair.split == "sealed"]
        what = f"push {trait.name}, carried and own, beside {2 * N_PUSHED} others"
        steps.append(pace.pushing(what, pairs, 2 * (2 + 2 * N_PUSHED), None))
    notes = dict.fromkeys(pace.note for pace in paces.values())
    return _plan(f"transfer from {source.model} to {target.model}", steps, folder, "; ".join(notes))


def _placebo_step(config: JobConfig) -> dict[str, Any]:
    found = counted_placebos(config)
    figures = {name: found[name] for name in ("n_passes", "n_tokens", "seconds")}
    return {"step": f"sample the placebo contrasts of {config.model}", **figures}


def counted_placebos(config: JobConfig) -> dict[str, Any]:
    """{n_rows, n_passes, n_tokens, seconds} of the placebo contrasts, one answer per cell, prompts taken as 60 tokens."""
    from workbench.personas.placebos import list_placebos, placebo_questions

    groups = [2 * len(placebo.pairs) * len(placebo_questions()) for placebo in list_placebos()]
    return {"n_rows": sum(groups), **counted_sampling(groups, config.batch_size, config.max_new_tokens, size_scale(config.model))}


def _select(trait: Any) -> list[Any]:
    return [pair for pair in trait.contrast_pairs if pair.split == "select"]
