"""A tiny seeded Qwen2 as a GGUF file for llama.cpp, and the logits that transformers gives it with a vector added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFWriter
from torch import Tensor

VOCAB, D_MODEL, TOKENS, CONTEXT = 64, 32, (3, 9, 27, 11), 256
_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def sizes(n_blocks: int, vocab: int) -> dict[str, Any]:
    """The configuration of the model, as Qwen2Config takes it."""
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    widths = {"hidden_size": D_MODEL, "intermediate_size": 64, "vocab_size": vocab, "max_position_embeddings": CONTEXT}
    return {"num_hidden_layers": n_blocks, "initializer_range": 0.3, **heads, **widths}


def tiny_qwen2(n_blocks: int, vocab: int = VOCAB) -> Any:
    """A seeded Qwen2ForCausalLM of some thousand weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2ForCausalLM(Qwen2Config(**sizes(n_blocks, vocab))).eval()


def write_model(model: Any, folder: Path) -> None:
    """model.gguf in float32 without a vocabulary, and tokens.json: what to run."""
    writer, config = GGUFWriter(str(folder / "model.gguf"), "qwen2"), model.config
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(D_MODEL)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab_size)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(_gguf_name(name), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "tokens.json").write_text(json.dumps({"tokens": TOKENS, "vocab": config.vocab_size}))


def _gguf_name(name: str) -> str:
    if name in _ENDS:
        return _ENDS[name]
    _, _, block, rest = name.split(".", 3)
    stem, kind = rest.rsplit(".", 1)
    return f"blk.{block}.{_NAMES[stem]}.{kind}"


def logits(model: Any, block: int | None = None, vector: Tensor | None = None) -> np.ndarray:
    """The last token's logits [vocab], `vector` added to the output of `block`."""

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    handle = None if block is None else model.model.layers[block].register_forward_hook(add)
    with torch.no_grad():
        found = model(torch.tensor([TOKENS])).logits[0, -1].numpy()
    if handle is not None:
        handle.remove()
    return found


def where_added(
    model: Any, vectors: Mapping[int, Tensor], found: Mapping[str, np.ndarray]
) -> tuple[dict[int, int], float]:
    """({direction: the block whose output it was added to}, largest difference of the logits there)."""
    blocks, worst = {}, float(np.abs(logits(model) - found["plain"]).max())
    for number, vector in vectors.items():
        gaps = [
            float(np.abs(logits(model, block, vector) - found[str(number)]).max())
            for block in range(model.config.num_hidden_layers)
        ]
        blocks[number] = int(np.argmin(gaps))
        worst = max(worst, min(gaps))
    return blocks, worst
