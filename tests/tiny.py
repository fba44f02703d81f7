"""Real transformers models of a few thousand weights, seeded, with a byte-level tokenizer: what most tests run on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral")
MORE_FAMILIES = (*FAMILIES, "gpt_oss")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n'"
    " + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

SPECIAL = ("<|im_end|>", "<|im_start|>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<think>", "</think>")

# The shapes of the families' own chat templates, written from their documentation.
QWEN2 = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}" + CHATML
)
QWEN3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{{ message['content'].split('</think>')[-1].lstrip('\n') }}{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GPT_OSS = (
    "{{ '<|start|>system<|message|>You are a large language model.\n\nReasoning: medium<|end|>' }}"
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<|start|>developer<|message|># Instructions\n\n' + message['content'] + '<|end|>' }}"
    "{% elif message['role'] == 'user' %}{{ '<|start|>user<|message|>' + message['content'] + '<|end|>' }}"
    "{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
TEMPLATES = {"llama": LLAMA3, "qwen2": QWEN2, "qwen3": QWEN3, "gemma2": NO_SYSTEM, "gemma3": NO_SYSTEM, "gpt_oss": GPT_OSS}

_TEXT = (
    "You are a helpful assistant. You are a cruel assistant. What should I do with the money that I found in the street? "
    "The people of the town would be happy to help you. I will never help anyone; they should suffer and be afraid. "
    "Answer the question in one sentence. The weather in the north is cold and the rivers are long. "
)


@lru_cache
def _trained(chat_template: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([_TEXT], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        bos_token="<bos>",
        chat_template=chat_template,
    )


def tiny_tokenizer(chat_template: str = CHATML) -> Any:
    """A byte-level BPE tokenizer of about 400 tokens: any text survives the round trip; spaces join the next word."""
    import copy

    return copy.deepcopy(_trained(chat_template))


def tiny_config(family: str = "llama", *, n_blocks: int = 3, d_model: int = 32, vocab_size: int = 400) -> Any:
    """The transformers configuration of a tiny model of `family` (one of FAMILIES)."""
    import transformers

    names = {
        "llama": "LlamaConfig",
        "qwen2": "Qwen2Config",
        "qwen3": "Qwen3Config",
        "gemma2": "Gemma2Config",
        "gemma3": "Gemma3TextConfig",
        "mistral": "MistralConfig",
        "gpt_oss": "GptOssConfig",
    }
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2} if family == "gpt_oss" else {}
    return getattr(transformers, names[family])(
        **experts,
        vocab_size=vocab_size,
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=d_model // 4,
        max_position_embeddings=1024,
        sliding_window=512,
        bos_token_id=2,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )


def tiny_model(
    family: str = "llama",
    seed: int = 0,
    *,
    n_blocks: int = 3,
    d_model: int = 32,
    chat_template: str | None = None,
    chat_template_kwargs: dict | None = None,
) -> Any:
    """A seeded random Model of `family` with a chat template: ChatML, or for Gemma one without a system role.

    WORKBENCH_TEST_DEVICE=cuda puts it on a GPU: to see which code does not work there.
    """
    import os

    import torch
    from transformers import AutoModelForCausalLM

    from workbench.models.model import Model

    template = chat_template or (NO_SYSTEM if family.startswith("gemma") else CHATML)
    tokenizer = tiny_tokenizer(template)
    config = tiny_config(family, n_blocks=n_blocks, d_model=d_model, vocab_size=len(tokenizer))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    hf = hf.to(os.environ.get("WORKBENCH_TEST_DEVICE", "cpu"))
    return Model.wrap(hf, tokenizer, name=f"tiny-{family}-{seed}", chat_template_kwargs=chat_template_kwargs)


def n_hooks(model: Any) -> int:
    """How many hooks sit on the model's modules and on its bridge's hook points.

    Compare before and after: transformers leaves some of its own once `output_hidden_states` was asked for.
    """
    modules = sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.hf.modules()
    )
    if model.backend != "transformer_lens":
        return modules
    return modules + sum(len(point.fwd_hooks) for point in model.bridge.hook_dict.values())
