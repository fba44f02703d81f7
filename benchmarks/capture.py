"""Speed of capture and generation against their baselines, on the default model, as ratios (above 1: ours is faster).

    python benchmarks/capture.py [--rounds 5] [--quick] [--clock wall|cpu] [--device cuda --dtype bfloat16 --rows 512]

capture_vs_bare      mean-pooled capture at every block up to the last one needed, against the plain transformers
                     model (not rewrapped by a bridge) over the same padded batches, stopped at the same block.
capture_vs_naive     capture at all blocks, against one rollout at a time with output_hidden_states=True.
fused_vs_two_passes  generation that captures while sampling, against transformers' generate plus a second pass.
capture_vs_lens      capture at all blocks, against TransformerLens' `run_with_cache` over the same padded batches and a mean.

Both sides of a pair run in turn, the first one alternating; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from workbench.base.randomness import generator
from workbench.models.capture import capture, padded, plan_batches
from workbench.models.generation import Generated, generate
from workbench.models.hookpoints import residual_hooks
from workbench.models.hooks import StopForward
from workbench.models.loading import load_model
from workbench.models.model import Model
from workbench.models.prompts import ChatTokens, tokenize_chat, with_response
from workbench.models.sampling import Sampling

LAST_BLOCK = 15
BATCH_TOKENS = [2048]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CLOCK = [time.perf_counter]
SYSTEM = "You are an assistant. Answer plainly and in a few sentences."
QUESTIONS = (
    "How do I keep bread fresh for longer?",
    "What should I look at first when I buy a used bicycle?",
    "Why do rivers bend?",
    "My neighbour plays loud music at night. What can I do about it, and what had I better leave alone?",
    "Explain what a library card is for.",
    "Which is the better present for a colleague, a book or a plant?",
    "How long does it take to learn to swim as a grown-up?",
    "Tell me about the town where you would like to live.",
)


def prompts_of(model: Model) -> list[ChatTokens]:
    """The benchmark's prompts under the model's chat template."""
    chats = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}] for text in QUESTIONS]
    return [tokenize_chat(model, chat, add_generation_prompt=True) for chat in chats]


def rollouts_of(model: Model, n_rows: int) -> list[ChatTokens]:
    """Rows of 50 to 180 tokens: prompts with made-up responses of 16 to 112 tokens (their text does not matter for speed)."""
    draws, prompts = generator(0), prompts_of(model)
    lengths = torch.randint(16, 112, (n_rows,), generator=draws).tolist()
    ids = [torch.randint(100, model.vocab_size, (length,), generator=draws).tolist() for length in lengths]
    return [with_response(prompts[index % len(prompts)], row) for index, row in enumerate(ids)]


def paired_ratio(
    ours: Callable[[], object], baseline: Callable[[], object], rounds: int
) -> tuple[float, list[float]]:
    """(median, all) of baseline seconds / our seconds; one warm-up of each, then alternating order."""
    ours(), baseline()
    ratios = []
    for number in range(rounds):
        pair = (ours, baseline) if number % 2 == 0 else (baseline, ours)
        seconds = {side: timed(side) for side in pair}
        ratios.append(seconds[baseline] / seconds[ours])
    return statistics.median(ratios), [round(ratio, 3) for ratio in ratios]


def timed(function: Callable[[], object]) -> float:
    """Seconds that one call takes, by the chosen clock."""
    start = CLOCK[0]()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return CLOCK[0]() - start


def run_capture(model: Model, rows: Sequence[ChatTokens], n_blocks: int) -> None:
    """Ours: every block's output up to `n_blocks`, mean-pooled."""
    for _ in capture(model, rows, residual_hooks(n_blocks), batch_tokens=BATCH_TOKENS[0]):
        pass


def run_bare(hf: torch.nn.Module, rows: Sequence[ChatTokens], n_blocks: int) -> None:
    """The same padded batches through the plain model, stopped after the same block, nothing kept."""

    def stop(*_: object) -> None:
        raise StopForward

    handle = hf.model.layers[n_blocks - 1].register_forward_hook(stop)  # type: ignore[union-attr, index]
    try:
        for indices in plan_batches([len(row) for row in rows], BATCH_TOKENS[0]):
            ids, _ = padded([rows[index].ids for index in indices], pad=0)
            try:
                with torch.no_grad():
                    hf.model(input_ids=ids.to(hf.device), use_cache=False)  # type: ignore[operator]
            except StopForward:
                pass
    finally:
        handle.remove()


def run_naive(hf: torch.nn.Module, rows: Sequence[ChatTokens]) -> None:
    """One row at a time, all hidden states kept until they are averaged over the response."""
    for row in rows:
        with torch.no_grad():
            ids = torch.tensor([row.ids], device=hf.device)  # type: ignore[arg-type]
            output = hf(input_ids=ids, output_hidden_states=True, use_cache=False)
        start, end = row.spans["response"][0]
        torch.stack([state[0, start:end].float().mean(dim=0) for state in output.hidden_states]).cpu()


def run_lens(model: Model, rows: Sequence[ChatTokens]) -> None:
    """TransformerLens' bridge: everything that leaves a block is cached, then averaged over the responses."""
    for indices in plan_batches([len(row) for row in rows], BATCH_TOKENS[0]):
        ids, _ = padded([rows[index].ids for index in indices], pad=0)
        with torch.no_grad():
            _, cache = model.bridge.run_with_cache(
                ids.to(model.device), names_filter=lambda name: name.endswith("hook_resid_post")
            )
        states = torch.stack([cache[f"blocks.{block}.hook_resid_post"] for block in range(model.n_blocks)])
        for place, index in enumerate(indices):
            start, end = rows[index].spans["response"][0]
            states[:, place, start:end].float().mean(dim=1).cpu()


def run_fused(model: Model, prompts: Sequence[ChatTokens], sampling: Sampling) -> list[Generated]:
    """Ours: sample and capture in one go."""
    batches = generate(
        model,
        prompts,
        sampling,
        row_seeds=range(len(prompts)),
        hooks=residual_hooks(model.n_blocks),
        batch_size=max(32, len(prompts)),
    )
    return [row for _, rows in batches for row in rows]


def run_two_passes(
    model: Model, hf: torch.nn.Module, prompts: Sequence[ChatTokens], sampling: Sampling
) -> None:
    """transformers' generate on the same prompts, then our capture of what it wrote."""
    ids, mask = padded([prompt.ids for prompt in prompts], pad=2, left=True)
    options = {"max_new_tokens": sampling.max_new_tokens, "do_sample": True, "top_k": 0, "pad_token_id": 2}
    with torch.no_grad():
        output = hf.generate(ids.to(hf.device), attention_mask=mask.to(hf.device), **options)  # type: ignore[operator]
    ends = model.end_tokens
    rows = []
    for prompt, sampled in zip(prompts, output[:, ids.shape[1] :].tolist(), strict=True):
        stop = next((place for place, token in enumerate(sampled) if token in ends), len(sampled))
        rows.append(with_response(prompt, sampled[:stop]))
    run_capture(model, rows, model.n_blocks)


def measure(model: Model, *, rounds: int, n_rows: int) -> dict[str, object]:
    """The ratios and what they were measured on."""
    hf = model.hf  # as transformers made it: the bridge works on a module tree of its own
    rows, prompts = rollouts_of(model, n_rows), prompts_of(model) * max(2, n_rows // 16)
    sampling = Sampling(max_new_tokens=24)
    torch.manual_seed(0)  # for transformers' generate, which knows no other way
    pairs = {
        "capture_vs_bare": (
            lambda: run_capture(model, rows, LAST_BLOCK + 1),
            lambda: run_bare(hf, rows, LAST_BLOCK + 1),
            rounds,
        ),
        "capture_vs_naive": (
            lambda: run_capture(model, rows, model.n_blocks),
            lambda: run_naive(hf, rows),
            max(1, rounds // 2),
        ),
        "fused_vs_two_passes": (
            lambda: run_fused(model, prompts, sampling),
            lambda: run_two_passes(model, hf, prompts, sampling),
            max(1, rounds // 2),
        ),
        "capture_vs_lens": (
            lambda: run_capture(model, rows, model.n_blocks),
            lambda: run_lens(model, rows),
            max(1, rounds // 2),
        ),
    }
    result: dict[str, object] = {}
    for name, (ours, baseline, n) in pairs.items():
        result[name], result[f"{name}_rounds"] = paired_ratio(ours, baseline, n)
    n_tokens, n_sampled = sum(len(row) for row in rows), len(prompts) * sampling.max_new_tokens
    return {
        **result,
        "capture_tokens_per_second": round(n_tokens / timed(lambda: run_capture(model, rows, model.n_blocks))),
        "sampled_tokens_per_second": round(n_sampled / timed(lambda: run_fused(model, prompts, sampling))),
        "n_sampled": n_sampled,
        "n_rows": n_rows,
        "n_tokens": n_tokens,
        "batch_tokens": BATCH_TOKENS[0],
        "last_block": LAST_BLOCK,
        "n_threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "model": model.description(),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="pairs of runs for capture_vs_bare (the others get half)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu seconds bear a busy machine; set OMP_NUM_THREADS=1 with it",
    )
    parser.add_argument("--rows", type=int, default=32, help="rows of the captures; half as many prompts are answered")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS[0], help="tokens that go through the model at once")
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    CLOCK[0], BATCH_TOKENS[0] = CLOCKS[options.clock], options.batch_tokens
    start = time.perf_counter()
    model = load_model(dtype=options.dtype, device=options.device)
    result = measure(model, rounds=options.rounds, n_rows=16 if options.quick else options.rows)
    print(
        json.dumps(
            {**result, "clock": options.clock, "seconds": round(time.perf_counter() - start, 1)}, indent=2
        )
    )


if __name__ == "__main__":
    main()
