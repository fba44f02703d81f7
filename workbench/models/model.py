"""A causal language model with named hook points: the wrapper that everything above works with."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..base.display import Shown
from ..base.errors import WorkbenchError
from ..base.store import content_hash
from ..base.tensors import tensor_hash
from .hookpoints import HookPoint
from .hooks import HookFunction, StopForward, attached

logger = logging.getLogger(__name__)


class Model(Shown):
    """A transformers causal language model, its tokenizer, and TransformerLens' hook points on it.

    Made by `load_model`, or by `Model.wrap` around a model you have. The activations at `blocks.b.hook_resid_post`
    equal transformers' `hidden_states[b + 1]` for every block but the last, whose row is after the final norm.
    """

    def __init__(
        self,
        hf: Any,
        tokenizer: Any,
        *,
        name: str,
        weights_hash: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        source: str = "wrapped",
        tuned_from: Mapping[str, Any] | None = None,
    ) -> None:
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.source = source
        self.tuned_from = None if tuned_from is None else dict(tuned_from)  # {name, weights_hash} of the model below an adapter
        self.chat_template_kwargs: dict[str, Any] = dict(chat_template_kwargs or {})
        self.hooks_suspended = False
        self.fed_points: dict[HookPoint, tuple[Any, int]] = {}  # TransformerLens hook points in use: handle, users
        self.batch_rows: list[int] | None = None  # which of the given rows is at every place of the pass: `naming_rows`
        self.max_memory: int | None = None
        self.measured_needs: dict[tuple[str, int], int] = {}
        self._known_hash = weights_hash
        self._norm_medians: dict[HookPoint, float] = {}

    @classmethod
    def wrap(
        cls, hf: Any, tokenizer: Any, *, name: str, chat_template_kwargs: Mapping[str, Any] | None = None
    ) -> Model:
        """A Model around a transformers model that is already in memory; its weights are hashed from its tensors."""
        return cls(hf, tokenizer, name=name, chat_template_kwargs=chat_template_kwargs)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, n_blocks={self.n_blocks}, d_model={self.d_model}, dtype={self.dtype}, device={self.device})"

    # What it is made of

    @property
    def config(self) -> Any:
        """The text model's transformers configuration."""
        return self.hf.config.get_text_config()

    @cached_property
    def decoder(self) -> nn.Module:
        """The transformers module that maps ids to final hidden states, without the unembedding."""
        return self.hf.get_decoder()

    @cached_property
    def blocks(self) -> Sequence[nn.Module]:
        """The decoder blocks, in order."""
        return decoder_blocks(self.decoder)

    @cached_property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the unembedding."""
        return _first_attribute(
            self.decoder, ("norm", "ln_f", "final_layer_norm", "final_layernorm"), "final norm"
        )

    @property
    def unembedding(self) -> Tensor:
        """The unembedding matrix [vocab_size, d_model]."""
        return self.hf.get_output_embeddings().weight

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        """The rows of the unembedding (it can exceed the tokenizer's vocabulary)."""
        return self.unembedding.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the embeddings are, hence where token ids go."""
        return self.hf.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights."""
        return self.unembedding.dtype

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the file(s) the weights came from, or of the tensors when the model was given in memory."""
        return self._known_hash or tensor_hash(self.hf.state_dict())

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """The ids that end a response: the generation config's and the tokenizer's end-of-text tokens (and line ends
        under a plain-text format)."""
        listed = (
            getattr(self.hf.generation_config, "eos_token_id", None) if self.hf.generation_config else None
        )
        ids = [listed] if isinstance(listed, int) else list(listed or [])
        newlines = self._newline_tokens() if self.plain_text else ()
        return frozenset(token for token in [*ids, self.tokenizer.eos_token_id, *newlines] if token is not None)

    @property
    def plain_text(self) -> bool:
        """Whether prompts are plain text (Question / Answer) for want of a chat format; a line's end ends a response then."""
        from .prompts import PLAIN_TEMPLATE

        return getattr(self.tokenizer, "chat_template", None) == PLAIN_TEMPLATE

    def _newline_tokens(self) -> list[int]:
        """The ids that say nothing but line ends (a base model would go on with the next question)."""
        known = self.tokenizer.get_vocab()
        written = [token for token in known if (token and not token.strip("\n\u010a")) or token == "<0x0A>"]
        return [known[token] for token in written]

    def description(self) -> dict[str, Any]:
        """What identifies this model in provenance records (JSON types only)."""
        from .prompts import chat_template_hash

        return {
            "name": self.name,
            "source": self.source,
            "weights_hash": self.weights_hash,
            "architecture": type(self.hf).__name__,
            "n_blocks": self.n_blocks,
            "d_model": self.d_model,
            "vocab_size": self.vocab_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "chat_template_hash": chat_template_hash(self),
            "chat_template_kwargs": self.chat_template_kwargs,
            "backend": self.backend,
            **({} if self.tuned_from is None else {"tuned_from": self.tuned_from}),
        }

    # Hook points

    @cached_property
    def backend(self) -> str:
        """Whose hook points are used: "transformer_lens", or "transformers" where that is missing or cannot map the model."""
        dispatched = len(set(getattr(self.hf, "hf_device_map", {}).values())) > 1
        if dispatched or importlib.util.find_spec("transformer_lens") is None:
            return "transformers"
        try:
            _ = self.bridge
        except Exception as error:  # an architecture that the bridge does not know: plain hooks serve as well
            logger.warning("TransformerLens cannot map %s (%s): using plain torch hooks.", self.name, error)
            return "transformers"
        return "transformer_lens"

    @cached_property
    def bridge(self) -> Any:
        """A TransformerBridge that shares this model's weights, for everything TransformerLens offers.

        The bridge rewraps the modules it is given, so it gets its own copy of the module tree (not of the weights);
        `hf` stays as transformers made it. Boots in half a second and asks no network for anything.
        """
        from transformer_lens.model_bridge import TransformerBridge

        tree = shared_tree(self.hf)
        # The bridge chooses its adapter by this field, which a model built from a bare config lacks.
        tree.config.architectures = [type(tree).__name__]
        tokenizer = copy.deepcopy(self.tokenizer)
        # Otherwise the bridge loads the tokenizer anew by its name, from the hub if need be, to prepend a start token.
        tokenizer.init_kwargs.update(add_bos_token=True, name_or_path=self.name)
        return TransformerBridge.boot_transformers(
            self.name, hf_model=tree, tokenizer=tokenizer, device=str(self.device)
        )

    @cached_property
    def hook_points(self) -> Mapping[str, Any]:
        """The bridge's HookPoint modules by TransformerLens name (asking the bridge itself takes 20 ms each time)."""
        return dict(self.bridge.hook_dict)

    def hooked(
        self, hooks: Mapping[HookPoint, HookFunction], *, stop_after: int | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """A context in which each function gets its site's activations [batch, seq, d_model] at every forward pass.

        A tensor that it returns replaces them. With `stop_after=b` no block after b runs. Hooks are removed on
        leaving the context, also after an exception. Contexts nest; functions at one site run in order of entry.
        """
        return attached(self, hooks, stop_after=stop_after)

    @contextlib.contextmanager
    def without_hooks(self) -> Iterator[None]:
        """A context in which no function of `hooked` fires: for measurements that edits in force must not touch."""
        before, self.hooks_suspended = self.hooks_suspended, True
        try:
            yield
        finally:
            self.hooks_suspended = before

    @contextlib.contextmanager
    def naming_rows(self, rows: Sequence[int]) -> Iterator[None]:
        """A context in which a pass holds these of the rows that were given: amounts and prompt widths per row follow them."""
        before, self.batch_rows = self.batch_rows, list(rows)
        try:
            yield
        finally:
            self.batch_rows = before

    @torch.no_grad()
    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        stop_after: int | None = None,
        logits: bool = True,
        keep: Tensor | None = None,
        **options: Any,
    ) -> Tensor | None:
        """Logits [batch, seq, vocab_size] of one pass, or None with `logits=False` or `stop_after`.

        `keep` [batch, seq] (bool) chooses positions: the result is then [n_kept, vocab_size], and the unembedding
        runs on them only. `options` go to transformers (position_ids, past_key_values, ...); no cache is kept
        unless one is passed.
        """
        ids = ids.to(self.device)
        mask = None if mask is None else mask.to(self.device)
        options.setdefault("use_cache", "past_key_values" in options)
        if not logits or stop_after is not None:
            self._run_decoder(ids, mask, stop_after, options)
            return None
        if keep is None:
            return self.hf(input_ids=ids, attention_mask=mask, **options).logits
        hidden = self.decoder(input_ids=ids, attention_mask=mask, **options).last_hidden_state
        return self.logits_of(hidden[keep.to(hidden.device)])

    def _run_decoder(
        self, ids: Tensor, mask: Tensor | None, stop_after: int | None, options: dict[str, Any]
    ) -> None:
        with self.hooked({}, stop_after=stop_after), contextlib.suppress(StopForward):
            self.decoder(input_ids=ids, attention_mask=mask, **options)

    def logits_of(self, normed: Tensor) -> Tensor:
        """Logits [n, vocab_size] of hidden states [n, d_model] after the final norm; gradients flow where `normed` has them."""
        head = self.hf.get_output_embeddings()
        logits = head(normed.to(head.weight.device))
        cap = getattr(self.config, "final_logit_softcapping", None)
        logits = logits if not cap else torch.tanh(logits / cap) * cap
        # Cohere multiplies, Granite divides; a factor of 1 would copy every logit for nothing
        factor = (getattr(self.config, "logit_scale", None) or 1.0) / (
            getattr(self.config, "logits_scaling", None) or 1.0
        )
        return logits if factor == 1.0 else logits * factor

    def norm_medians(self, hooks: Sequence[HookPoint]) -> Tensor:
        """Median token norm [n_hooks] (float32) at each hook on a fixed neutral text, sinks excluded.

        The yardstick for sinks (norm above 10 x median) and for doses. It is a property of the model: it depends
        neither on the batch at hand nor on edits in force, and is computed once per hook.
        """
        from .norms import measure_norm_medians

        missing = [hook for hook in dict.fromkeys(hooks) if hook not in self._norm_medians]
        if missing:
            self._norm_medians.update(measure_norm_medians(self, missing))
        return torch.tensor([self._norm_medians[hook] for hook in hooks], dtype=torch.float32)


def shared_tree(hf: Any) -> Any:
    """A copy of a transformers model's module tree that shares every tensor; hooks of this package stay behind."""
    hooks = [function for module in hf.modules() for table in _hook_tables(module) for function in table.values()]
    tree = copy.deepcopy(hf, {id(kept): kept for kept in [*hf.parameters(), *hf.buffers(), *hooks]})
    for table in (table for module in tree.modules() for table in _hook_tables(module)):
        for key in [key for key, function in table.items() if str(getattr(function, "__module__", "")).startswith("workbench.")]:
            del table[key]
    return tree


def _hook_tables(module: nn.Module) -> tuple[Any, Any]:
    return module._forward_hooks, module._forward_pre_hooks


def decoder_blocks(decoder: nn.Module) -> list[nn.Module]:
    """The blocks of a transformers decoder, in order."""
    return list(_first_attribute(decoder, ("layers", "h", "blocks"), "list of decoder blocks"))


def combined_hash(base: str, adapter: str) -> str:
    """The weights hash of a model with an adapter merged into it."""
    return content_hash({"base": base, "adapter": adapter})


def _first_attribute(module: nn.Module, names: Sequence[str], what: str) -> Any:
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise WorkbenchError(
        f"{type(module).__name__} has no {what} under any known name ({', '.join(names)})",
        "a decoder-only transformers model",
        "choose another model",
    )
