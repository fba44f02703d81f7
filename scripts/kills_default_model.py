"""kills.py on the default model: five kills of every stage, what survives compared byte for byte.

    python scripts/kills_default_model.py                   # some twenty-five minutes on one idle core
    python scripts/kills_default_model.py --only screen --kills 2

The stages are those of kills.py with SmolLM2-135M-Instruct in bfloat16, its SAE on the shelf and a short trait; there is less
text, as a pass costs a hundred times as much. Prints the same JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import kills

MODEL, HOOK, DTYPE = "smollm2-135m-instruct", "blocks.15.hook_resid_post", ("--dtype", "bfloat16")
TINY_STAGES = kills.stages
SIZES = {"--tokens": "16000", "--n-features": "4"}
N_LINES, N_CHATS, N_STEPS = 600, 60, 60


def stages() -> dict[str, tuple[str, ...]]:
    """{stage: its command}: those of the tiny model with this one in its place."""
    return {name: _here(name, command) for name, command in TINY_STAGES().items()}


def _here(name: str, command: tuple[str, ...]) -> tuple[str, ...]:
    known = {"model": MODEL, kills.HOOK: HOOK}
    words = [known.get(word, word) for word in command]
    words = [SIZES.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    places = [i for i, word in enumerate(words) if word == "--sae"]
    for place in reversed(places):  # the one on the shelf
        del words[place : place + 2]
    return (*words, *(DTYPE if name != "sae train" else ()))


def prepare(folder: Path) -> None:
    """A short trait, texts, chats and a recipe."""
    from tests.short import short_trait

    trait = short_trait("evil", folder / "traits", n_questions=(8, 2, 2), n_instructions=2)
    (trait / "pairs.yaml").unlink()
    words = [f"Line {n}: some words about the sea, its ships and its weather, and number {n * n}." for n in range(N_LINES)]
    (folder / "texts.txt").write_text("\n\n".join(words))
    chats = [{"prompt": f"What of number {n}?", "response": words[n]} for n in range(N_CHATS)]
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    training = {"d_sae": 256, "k": 8, "batch_size": 128, "n_steps": N_STEPS, "log_every": 5, "checkpoint_every": 10}
    data = {"characters": 60_000, "per_source": 60_000, "chats": 0, "traits": [], "corpus": "texts.txt"}
    recipe = {"model": MODEL, "hook": HOOK, "capture_dtype": "bfloat16", "training": training, "data": data}
    (folder / "sae.yaml").write_text(json.dumps(recipe))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a stage, or those whose name holds this text")
    options = parser.parse_args()
    kills.stages, kills.prepare = stages, prepare
    found = kills.kill_stages(options.kills, options.seed, options.only)
    print(json.dumps(found, indent=1))
    return int(any(one["identical"] != one["kills"] for one in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
