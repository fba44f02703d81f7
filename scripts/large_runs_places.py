"""The places in docs/large_runs.md: arithmetic from a model's shape, held against the runs of docs/evidence/scale.json.

    flops       2 x parameters x tokens for a forward pass (attention over the context aside), 4 x with gradients of activations
    SAE         6 x 2 x d_model x d_sae x tokens: encoder and decoder, forward and twice backward
    bytes       d_model x 2 per token and hook in bfloat16
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence"
PEAK, USED = 989e12, 0.4
"""bfloat16 flops per second of an H100 SXM (data sheet, dense), and the share of them that large batches reach."""
HBM, GPU_BYTES, NETWORK = 3.35e12, 80e9, 50e9
"""Bytes per second of its memory, its memory, and of a 400 Gbit/s link between machines."""


@dataclass(frozen=True)
class Shape:
    """What the arithmetic needs of a model."""

    name: str
    parameters: float
    blocks: int
    d_model: int
    kv_bytes: int
    """Bytes of keys and values per token in bfloat16: 2 x blocks x key heads x head size x 2."""


SHAPES = (
    Shape("7B (Qwen2.5)", 7.62e9, 28, 3584, 2 * 28 * 4 * 128 * 2),
    Shape("70B (Llama 3.3)", 70.6e9, 80, 8192, 2 * 80 * 8 * 128 * 2),
)
N_TRAITS, N_ROLLOUTS, PROMPT, REPLY, ROWS = 7, 2000, 150, 64, 256
N_TOKENS, D_SAE = 1_000_000_000, 65_536


def large_runs_table() -> str:
    """GPU-hours and bytes of the persona vectors, of reading a billion tokens at one block, and of an SAE on them."""
    lines = ["| | " + " | ".join(shape.name for shape in SHAPES) + " |", "|---|" + "---|" * len(SHAPES)]
    for title, row in _rows():
        lines.append(f"| {title} | " + " | ".join(row(shape) for shape in SHAPES) + " |")
    return "\n" + "\n".join(lines) + "\n"


def _rows() -> tuple[tuple[str, Callable[[Shape], str]], ...]:
    return (
        (f"weights in bfloat16; GPUs that hold them, a cache of {ROWS} rows and a tenth more", _gpus),
        (f"{N_TRAITS} traits x {N_ROLLOUTS:,} rollouts: prompts, bound by arithmetic", lambda s: _hours(_reading(s, PROMPT))),
        ("sampling their replies, bound by memory bandwidth", lambda s: _hours(_sampling(s))),
        ("the same rollouts read again without the system prompt", lambda s: _hours(_reading(s, PROMPT + REPLY))),
        (f"{N_TOKENS / 1e9:.0f} billion tokens through the blocks up to the middle", lambda s: _hours(_capture(s))),
        ("their activations at one block", lambda s: _bytes(2 * s.d_model * N_TOKENS)),
        ("sent to another machine over 400 Gbit/s", lambda s: f"{2 * s.d_model * N_TOKENS / NETWORK / 60:.0f} min"),
        (f"an SAE of {D_SAE:,} features on them, one pass", lambda s: _hours(12 * s.d_model * D_SAE * N_TOKENS / (PEAK * USED))),
        ("that SAE with Adam's moments in float32", lambda s: _bytes(2 * s.d_model * D_SAE * 12)),
    )


def _gpus(shape: Shape) -> str:
    needed = 2 * shape.parameters + ROWS * (PROMPT + REPLY) * shape.kv_bytes
    return f"{_bytes(2 * shape.parameters)}; {max(1, -(-1.1 * needed // GPU_BYTES)):.0f}"


def _sampling(shape: Shape) -> float:
    """GPU seconds: every step reads all weights and the cache once, for `ROWS` rows together."""
    steps = N_TRAITS * N_ROLLOUTS / ROWS * REPLY
    return steps * (2 * shape.parameters + ROWS * (PROMPT + REPLY / 2) * shape.kv_bytes) / HBM


def _reading(shape: Shape, n_tokens: int) -> float:
    return 2 * shape.parameters * N_TRAITS * N_ROLLOUTS * n_tokens / (PEAK * USED)


def _capture(shape: Shape) -> float:
    """GPU seconds of the first half of the blocks."""
    return 2 * shape.parameters / 2 * N_TOKENS / (PEAK * USED)


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.2f} GPU h" if hours < 1 else f"{hours:.0f} GPU h"


def _bytes(number: float) -> str:
    return f"{number / 1e12:.1f} TB" if number >= 1e12 else f"{number / 1e9:.0f} GB"


def large_runs_check_line() -> str:
    """The same arithmetic on runs that were measured: flops per second have to come out alike at every size."""
    reached = {}
    for name, one in read_json(EVIDENCE / "scale.json")["shapes"].items():
        planned, measured = one["planned"], one["measured"]
        reached[name] = 2 * planned["n_parameters"] * planned["n_tokens"] / measured["seconds"] / 1e9
    told = ", ".join(f"{name} {value:.0f}" for name, value in reached.items())
    spread = max(reached.values()) / min(reached.values()) - 1
    what = "2 x parameters x tokens over measured seconds, on two processor cores, in GFLOP/s"
    return f"{what}: {told}; they differ by {spread:.0%}."


PLACES = (large_runs_table, large_runs_check_line)
