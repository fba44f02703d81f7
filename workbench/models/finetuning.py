"""LoRA fine-tuning of a Model on chat replies, by peft: checkpointed, resumed exactly, and away from the base's own weights.

Training runs on a module tree of its own that shares the base's tensors, so that the base can be used at the same time and is
never changed. What comes out is an ordinary PEFT folder with a card beside it; `finetuned` puts it on, as a Model of its own.

Bit-exact: the same base, data, options, edits and number of threads on the same machine, interrupted or not.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base.display import Shown
from ..base.errors import WorkbenchError
from ..base.progress import track
from ..base.provenance import package_version
from ..base.randomness import derive_seed, generator
from ..base.store import content_hash, read_json, sha256_file, write_json
from ..base.tensors import load_artifact, save_artifact, save_tensors
from .adapters import CARD, CONFIG, SCHEMA, WEIGHTS, Adapter, finetuned, require_peft
from .hookpoints import HookPoint
from .model import Model, shared_tree
from .quiet import quiet_peft
from .reply_batches import (
    BATCH_TOKENS,
    MAX_TOKENS,
    BatchEdit,
    ChatExample,
    ReplyTokens,
    batches_of,
    reply_losses,
    reply_tokens,
)

CHECKPOINT = "checkpoint"
MAX_GRADIENT_NORM = 1.0
_STATE, _MOMENTS = "finetune_state", ("step", "exp_avg", "exp_avg_sq")
__all__ = ["Adapter", "BatchEdit", "ChatExample", "FinetuneOptions", "finetune", "finetuned", "reply_losses"]


@dataclass(frozen=True, repr=False)
class FinetuneOptions(Shown):
    """How an adapter is trained: AdamW without weight decay, a linear warm-up, then linear decay to 0; gradients clipped."""

    rank: int = 32
    """Rank of the update of each weight matrix (all linear layers but the unembedding)."""
    alpha: int = 64
    """Scale of the update; with rank-stabilised LoRA it is alpha / rank^(1/2)."""
    rank_stabilised: bool = True
    """rsLoRA (Kalajdzievski 2023, arXiv 2312.03732) instead of alpha / rank."""
    learning_rate: float = 5e-4
    """At its highest, after the warm-up."""
    warmup_steps: int = 5
    """Steps over which the learning rate rises."""
    steps: int = 60
    """Updates."""
    batch_size: int = 8
    """Examples per update; every epoch has its own order."""
    max_tokens: int = MAX_TOKENS
    """An example is cut after so many tokens, prompt included."""
    max_reply_tokens: int | None = None
    """A reply is cut after so many tokens, however long its prompt is; None = not."""
    batch_tokens: int = BATCH_TOKENS
    """At most so many tokens go through at once: gradients of the parts of a batch add up."""
    kl_weight: float = 0.0
    """Weight of KL(base || tuned), in nats per reply token, beside the loss."""
    seed: int = 0
    """Of the start values and of the order."""

    def __post_init__(self) -> None:
        counts = (self.rank, self.steps, self.batch_size, self.max_tokens, self.batch_tokens, self.max_reply_tokens or 1)
        sizes = (self.alpha, self.learning_rate)
        if min(counts) < 1 or not all(0 < size < math.inf for size in sizes) or not 0 <= self.kl_weight < math.inf:
            raise WorkbenchError(
                f"{asdict(self)} cannot be trained with",
                "counts from 1, alpha and learning_rate above 0, kl_weight from 0",
                "correct the fine-tuning options",
            )

    @property
    def scale(self) -> float:
        """What the product of the two low-rank matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of update `step` (from 0)."""
        rising = (step + 1) / (self.warmup_steps + 1)
        falling = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * min(1.0, rising, falling)


def finetune(
    model: Model,
    examples: Sequence[ChatExample],
    folder: str | os.PathLike[str],
    options: FinetuneOptions | None = None,
    *,
    edit: BatchEdit | None = None,
    checkpoint_every: int = 10,
) -> Adapter:
    """Train an adapter of `model` to give the examples' replies; returns it as it lies in `folder`.

    loss = mean over the batch's reply tokens of -log p(token)  +  kl_weight x mean KL(p_base || p_tuned)

    `edit` is in force on the model in training only: not on the base of the KL term, and not afterwards. A checkpoint is
    written every `checkpoint_every` updates, and the next call goes on there; a finished adapter is not trained again. The base's
    weights, torch's global generator and its gradient mode are left as they were.

    Raises WorkbenchError without peft, without usable examples, when the loss is no longer finite, or when `folder` holds
    another fine-tune.
    """
    options, place = options or FinetuneOptions(), Path(folder)
    require_peft()
    rows = reply_tokens(model, examples, max_tokens=options.max_tokens, max_reply_tokens=options.max_reply_tokens)
    source = _source(model, rows, options, edit)
    key = content_hash(source)
    if (place / CARD).is_file():
        found = Adapter.load(place)
        if found.card["key"] == key:
            return found
        raise _other_finetune(place)
    if (place / WEIGHTS).exists() and not (place / CHECKPOINT).exists():
        raise _other_finetune(place)  # somebody's adapter without a card of ours
    with torch.enable_grad():
        run = _Run(model, rows, options, edit, place / CHECKPOINT, key)
        run.resume()
        run.train(checkpoint_every)
    return _finished(run, place, source, key)


class _Trained(Model):
    """A model while it is trained: plain torch hooks on its own modules, and the yardsticks (norms, sinks) of its base."""

    @property
    def backend(self) -> str:
        return "transformers"

    def __init__(self, base: Model, tree: Any) -> None:
        super().__init__(tree, base.tokenizer, name=base.name, weights_hash=base.weights_hash,
                         chat_template_kwargs=base.chat_template_kwargs)  # fmt: skip
        self._base = base

    def norm_medians(self, hooks: Sequence[HookPoint]) -> Tensor:
        return self._base.norm_medians(hooks)


class _Run:
    """The mutable state of one training: the adapter's tensors by name, their optimizer, and the losses so far."""

    def __init__(
        self, base: Model, rows: Sequence[ReplyTokens], options: FinetuneOptions, edit: BatchEdit | None,
        folder: Path, key: str,
    ) -> None:  # fmt: skip
        self.base, self.rows, self.options, self.edit, self.folder, self.key = base, rows, options, edit, folder, key
        self.peft = _with_adapter(base, options)
        self.model = _Trained(base, self.peft.get_base_model())
        self.parameters = {name: tensor for name, tensor in self.peft.named_parameters() if "lora_" in name}
        for tensor in self.parameters.values():
            tensor.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=options.learning_rate, weight_decay=0.0)
        self.losses: list[float] = []

    def train(self, checkpoint_every: int) -> None:
        """The updates that are missing."""
        options = self.options
        with track("fine-tuning", options.steps, "steps") as step:
            step(len(self.losses))
            for number in range(len(self.losses), options.steps):
                self.losses.append(self._update(number))
                step(1, f"loss {self.losses[-1]:.3f}")
                if (number + 1) % checkpoint_every == 0 and number + 1 < options.steps:
                    self._checkpoint()

    def _update(self, number: int) -> float:
        batch = [self.rows[index] for index in batch_indices(len(self.rows), number, self.options)]
        n_tokens = sum(len(row.reply) for row in batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate_at(number)
        self.optimizer.zero_grad(set_to_none=True)
        lost = 0.0
        for _, piece in batches_of(self.base, batch, self.options.batch_tokens):
            with self.edit.enter(self.model, piece.prompt_width) if self.edit else nullcontext():
                logp = piece.log_probabilities(self.model)
                surprise = piece.surprise(logp).sum()
                loss = surprise if not self.options.kl_weight else surprise + self.options.kl_weight * self._kl(piece, logp)
                (loss / n_tokens).backward()
            lost += float(surprise.detach()) / n_tokens
        norm = nn.utils.clip_grad_norm_(list(self.parameters.values()), MAX_GRADIENT_NORM)
        if not math.isfinite(lost) or not bool(norm.isfinite()):
            found = f"the loss of update {number} is {lost}, the norm of its gradient {float(norm)}"
            raise WorkbenchError(found, "finite ones", "lower the learning rate or the edit's dose")
        self.optimizer.step()
        return lost

    def _kl(self, piece: Any, logp: Tensor) -> Tensor:
        """The sum over tokens of KL(p_base || p_tuned); edits in force on the base stay silent."""
        with torch.no_grad(), self.base.without_hooks():
            reference = piece.log_probabilities(self.base)
        return (reference.exp() * (reference - logp)).sum()

    def _checkpoint(self) -> None:
        """In a folder of its own, so that a kill while it is written leaves the one before."""
        moments = {
            f"{name}.{moment}": state[moment]
            for name, tensor in self.parameters.items()
            for state in [self.optimizer.state[tensor]]
            for moment in _MOMENTS
        }
        before = list(self.folder.glob("*"))
        place, document = self.folder / f"{len(self.losses):07d}", {"key": self.key, "losses": self.losses}
        save_artifact(place, _STATE, SCHEMA, document, {**self.parameters, **moments})
        for old in before:
            shutil.rmtree(old, ignore_errors=True)

    def resume(self) -> None:
        """Take up the last checkpoint that was written to its end, where there is one."""
        written = sorted(self.folder.glob(f"*/{_STATE}.json"))
        if not written:
            return
        document, tensors = load_artifact(written[-1].parent, _STATE, SCHEMA)
        if document["key"] != self.key:
            raise _other_finetune(self.folder.parent)
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[name])
            moments = {moment: tensors[f"{name}.{moment}"] for moment in _MOMENTS}
            self.optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()}
        self.losses = [float(loss) for loss in document["losses"]]


def batch_indices(n_rows: int, step: int, options: FinetuneOptions) -> list[int]:
    """The rows of update `step`: the next `batch_size` of an endless row of epochs, each in an order of its own."""
    wanted = range(step * options.batch_size, (step + 1) * options.batch_size)
    epochs = {place // n_rows for place in wanted}
    orders = {
        epoch: torch.randperm(n_rows, generator=generator(derive_seed("fine-tuning order", options.seed, epoch))).tolist()
        for epoch in epochs
    }
    return [orders[place // n_rows][place % n_rows] for place in wanted]


def _with_adapter(base: Model, options: FinetuneOptions) -> Any:
    """A PeftModel around a tree of its own; the start values come from the seed alone."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank, lora_alpha=options.alpha, use_rslora=options.rank_stabilised, target_modules="all-linear",
        lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    with quiet_peft():  # the start values that it draws are replaced below
        made = get_peft_model(shared_tree(base.hf), config)
    made.peft_config["default"].base_model_name_or_path = base.name  # not a path of this machine
    source = generator(derive_seed("fine-tuning start", options.seed))
    for name, tensor in made.named_parameters():
        if "lora_A" in name:
            bound = 1 / math.sqrt(tensor.shape[1])  # peft's own: uniform Kaiming with a = 5^(1/2)
            tensor.data.copy_((torch.rand(tensor.shape, generator=source) * 2 - 1) * bound)
        elif "lora_B" in name:
            tensor.data.zero_()
    return made


def _source(model: Model, rows: Sequence[ReplyTokens], options: FinetuneOptions, edit: BatchEdit | None) -> dict[str, Any]:
    """What an adapter depends on, in JSON types."""
    texts = content_hash([[row.prompt, row.reply] for row in rows])
    return {
        "base": {"name": model.name, "weights_hash": model.weights_hash, "dtype": str(model.dtype).removeprefix("torch.")},
        "data": {"n_examples": len(rows), "n_reply_tokens": sum(len(row.reply) for row in rows), "sha256": texts},
        "options": asdict(options),
        "edit": dict(edit.description) if edit else None,
    }


def _finished(run: _Run, place: Path, source: dict[str, Any], key: str) -> Adapter:
    """Write the PEFT folder, then the card; the checkpoint goes last."""
    from peft import get_peft_model_state_dict

    save_tensors(place / WEIGHTS, get_peft_model_state_dict(run.peft, save_embedding_layers=False), {"format": "pt"})
    config = {**run.peft.peft_config["default"].to_dict(), "inference_mode": True}
    write_json(place / CONFIG, config)
    versions = {name: package_version(name) for name in ("torch", "transformers", "peft")}
    card = {"kind": "finetune", "schema": SCHEMA, "key": key, **source, "losses": run.losses,
            "adapter_sha256": sha256_file(place / WEIGHTS), "versions": versions}  # fmt: skip
    write_json(place / CARD, card)
    shutil.rmtree(run.folder, ignore_errors=True)
    return Adapter(place, read_json(place / CARD))


def _other_finetune(folder: Path) -> WorkbenchError:
    return WorkbenchError(
        f"{folder} holds another fine-tune (another base, data, options or edit)",
        "an empty folder, or one with the same fine-tune",
        "choose another folder, or delete it to start afresh",
    )
