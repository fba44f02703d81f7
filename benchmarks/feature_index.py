"""Speed and memory of the index of all features, against the model and the encoder alone, in one run.

    python benchmarks/feature_index.py [--quick] [--tokens 1000000] [--d-sae 16384] [--blocks 16] [--d-model 576] [--rounds 3]

index_vs_floor    processor seconds of the model and the encoder alone / processor seconds of `build_index` over as many tokens in
                  the same batches: 1 is the speed of the floor. The floor runs on the first 32,768 tokens before and
                  after the index and is scaled up; its rounds are in `floor_seconds_per_token`. `clock_ratio`: of the clock.
index_peak_bytes  what building the index takes beyond the model and the SAE: the peak memory of a process of its own, its
                  high-water mark set back (Linux) when both stand; `floor_peak_bytes`: the same of the floor.
bookkeeping       processor seconds per token of the tally on the first piece, on which nearly every place is kept, and on the
                  last one; the mean of all pieces as a share of the floor.

A random Llama of the shape of the shipped model's lower half (576 wide, 16 blocks), a jumprelu SAE with 48 active codes per token
on average, documents of 128 random tokens, Zipf-distributed. `--quick` measures few tokens on a smaller SAE. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from workbench.base.randomness import generator
from workbench.labeling.contexts.building import build_index
from workbench.labeling.contexts.encoding import CODE_CELLS, length_batches, padded
from workbench.labeling.contexts.shards import Shard, shard_folder
from workbench.labeling.contexts.streams import TokenDocument
from workbench.labeling.contexts.tallies import Sizes, Tally
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.saes.interface import SparseAutoencoder
from workbench.saes.token_rows import activations_at

L0 = 48
DOCUMENT = 128
BATCH_TOKENS = 4096
QUICK = {"tokens": 12_288, "d_sae": 4096, "rounds": 1}
VOCABULARY = 8192


def made_model(d_model: int, blocks: int) -> Model:
    """A seeded random Llama with a word-level tokenizer of VOCABULARY words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    heads = d_model // 64
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=d_model,
        intermediate_size=d_model * 8 // 3,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 3),
        max_position_embeddings=2048,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = LlamaForCausalLM(config)
    return Model.wrap(hf, PreTrainedTokenizerFast(tokenizer_object=core, eos_token="w0", pad_token="w0"), name="random")


def made_sae(model: Model, d_sae: int, documents: list[TokenDocument]) -> SparseAutoencoder:
    """Random directions, with the threshold at which L0 of them fire on average on the documents."""
    hook = HookPoint(model.n_blocks - 1)
    ids, mask = padded([document.ids for document in documents])
    rows = activations_at(model, hook, ids, mask)[:, 1:].flatten(0, 1).float()
    encoder = torch.randn(model.d_model, d_sae, generator=generator(1)) / math.sqrt(model.d_model)
    pre = (rows - rows.mean(0)) @ encoder
    spread = pre.std(0)
    threshold = spread * float((pre / spread).flatten()[: 1 << 22].quantile(1 - L0 / d_sae))
    return SparseAutoencoder("random", hook, model.name, "jumprelu", encoder, torch.zeros(d_sae), encoder.T.contiguous(),
                             rows.mean(0), "random", threshold=threshold)  # fmt: skip


def made_documents(n_tokens: int) -> Iterator[TokenDocument]:
    """Documents of DOCUMENT tokens from three sources."""
    weights = 1 / torch.arange(1, VOCABULARY).float()
    for number in range(math.ceil(n_tokens / DOCUMENT)):
        ids = torch.multinomial(weights, DOCUMENT, replacement=True, generator=generator(number)) + 1
        source = ("owt", "wikipedia", "rollouts:evil:positive", "rollouts:evil:negative")[number % 4]
        yield TokenDocument(tuple(ids.tolist()), source, str(number), str(number))


@torch.no_grad()
def floor(model: Model, sae: SparseAutoencoder, documents: list[TokenDocument]) -> None:
    """The model up to the SAE's hook and the encoder, in the batches of the index, and nothing else."""
    together = max(1, CODE_CELLS // sae.d_sae)
    for places in length_batches(documents, BATCH_TOKENS):
        rows = activations_at(model, sae.hook, *padded([documents[place].ids for place in places]))
        for piece in rows.flatten(0, 1).split(together):
            sae.encode(piece.float())


def seconds_of(work: Callable[[], Any]) -> tuple[float, float]:
    """(processor seconds, seconds of the clock)."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - clock


def compared(size: dict[str, int], folder: Path) -> dict[str, Any]:
    """The two sides: floor rounds before and after the index, so that a drift of the machine shows."""
    model = made_model(size["d_model"], size["blocks"])
    first = list(made_documents(BATCH_TOKENS))
    sae = made_sae(model, size["d_sae"], first)
    sample = list(made_documents(min(size["tokens"], 32_768)))
    n_sample = sum(len(document.ids) for document in sample)
    model.norm_medians([sae.hook])
    floor(model, sae, first)
    before = [seconds_of(lambda: floor(model, sae, sample)) for _ in range(size["rounds"])]
    index: list[Any] = []
    built = seconds_of(
        lambda: index.append(
            build_index(sae, model, made_documents(size["tokens"]), folder, n_tokens=size["tokens"], batch_tokens=BATCH_TOKENS)
        )
    )
    rounds = [*before, *(seconds_of(lambda: floor(model, sae, sample)) for _ in range(size["rounds"]))]
    per_token = [statistics.median(one) / n_sample for one in zip(*rounds, strict=True)]
    read = int(index[0].document["n_read"])
    return {
        "index_vs_floor": round(per_token[0] * read / built[0], 3),
        "clock_ratio": round(per_token[1] * read / built[1], 3),
        "n_tokens": read,
        "l0": round(float(index[0].arrays["pools_fired"].sum()) / index[0].n_tokens, 1),
        "index_seconds": round(built[1], 1),
        "floor_seconds_per_token": [round(one[0] / n_sample, 7) for one in rounds],
        "bookkeeping": bookkeeping(folder, index[0], per_token[0]),
        "disk_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    }


def bookkeeping(folder: Path, index: Any, floor_per_token: float) -> dict[str, Any]:
    """What the tally costs on the first and on the last piece, in processor seconds per token and as a share of the floor."""
    tally = Tally(index.d_sae, int(index.document["vocab_size"]), Sizes())
    costs = []
    for number in range(len(index.document["shards"])):
        shard = Shard.load(shard_folder(folder, number), d_sae=tally.d_sae, vocab_size=tally.vocab_size)
        costs.append(seconds_of(lambda piece=shard: tally.add(piece))[0] / shard.n_tokens)
    return {
        "first_seconds_per_token": round(costs[0], 7),
        "last_seconds_per_token": round(costs[-1], 7),
        "share_of_floor": round(statistics.mean(costs) / floor_per_token, 4),
    }


def peak_bytes(size: dict[str, int], side: str) -> int:
    """Peak memory of a process of its own that runs one side."""
    arguments = [str(size[name]) for name in ("tokens", "d_sae", "d_model", "blocks")]
    done = subprocess.run([sys.executable, __file__, "--side", side, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def one_side(side: str, tokens: int, d_sae: int, d_model: int, blocks: int) -> int:
    """Run the floor or the index over some tokens in this process; returns its peak memory in bytes beyond what model and SAE
    take."""
    model = made_model(d_model, blocks)
    sae = made_sae(model, d_sae, list(made_documents(BATCH_TOKENS)))
    model.norm_medians([sae.hook])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    standing = resident_peak()
    if side == "floor":
        floor(model, sae, list(made_documents(2 * BATCH_TOKENS)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            build_index(sae, model, made_documents(tokens), folder, n_tokens=tokens, batch_tokens=BATCH_TOKENS)
    return resident_peak() - standing


def resident_peak() -> int:
    """The high-water mark of this process's resident memory, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    defaults = {"tokens": 1_000_000, "d_sae": 16_384, "d_model": 576, "blocks": 16, "rounds": 3}
    for name in defaults:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    parser.add_argument("--memory-tokens", type=int, help="tokens of the memory measurement [default: those of the speed]")
    parser.add_argument("--side", nargs=5)
    given = parser.parse_args()
    if given.side:
        side, *numbers = given.side
        print(one_side(side, *map(int, numbers)))
        return
    size = {**defaults, **(QUICK if given.quick else {})}
    size |= {name: getattr(given, name) for name in defaults if getattr(given, name) is not None}
    with tempfile.TemporaryDirectory() as folder:
        result = {"size": size, "threads": torch.get_num_threads(), "cores": os.cpu_count(), **compared(size, Path(folder))}
    if not given.no_memory:
        memory = {**size, "tokens": given.memory_tokens or size["tokens"]}
        result |= {f"{side}_peak_bytes": peak_bytes(memory, side) for side in ("floor", "index")}
        result |= {"memory_tokens": memory["tokens"]}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
