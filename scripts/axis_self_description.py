"""Who the default model says it is when it is pushed along the axis, both ways: a part of docs/evidence/axis.json.

    python scripts/axis_map.py                        # the axis, under runs/axis-smollm2-135m-instruct
    python scripts/axis_self_description.py           # some 25 CPU minutes on two slow cores, bfloat16
    python scripts/axis_self_description.py --base    # gemma3-270m along its own axis, if runs/axis-gemma3-270m is there
                                                      # and along that of its fine-tune on chats, if axis_map.py made it

20 questions x 2 samples at six doses (.1, .2, .3 token norms, both ways), and two covariance-matched random directions at the
same norm and at the same KL. Every batch of replies is kept under runs/axis-MODEL/self_description and taken up again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import axis_capping as capping

from workbench.base.store import content_hash, sha256_file

N_SAMPLES, N_RANDOM, TOKENS = 2, 2, 48
BASE = "gemma3-270m"


def part() -> dict[str, Any]:
    """{self_description: {base, doses, helpers, validation, ...}, self_description_base: the same of the base model along its own
    axis, self_description_base_tuned: and along the axis of its fine-tune on chats; null where that axis is not there}: what
    docs/evidence/axis.json holds of it. Runs what is missing."""
    run, also = _base_run(), [N_SAMPLES, N_RANDOM, TOKENS, inputs()]
    instruct = capping.kept("instruct", lambda: _study(capping.MODEL, capping.RUN), _place(capping.RUN), also=also)
    return {"self_description": instruct, "self_description_base": _base("base", run),
            "self_description_base_tuned": _base("base_tuned", _tuned_run())}  # fmt: skip


def _base(name: str, along: Path) -> dict[str, Any] | None:
    """The base model along the axis of that run; None where there is none."""
    if not _axis_file(along).is_file():
        return None
    also = [N_SAMPLES, N_RANDOM, TOKENS, inputs(), _hash(along)]
    return capping.kept(name, lambda: _study(BASE, along), _place(along), also=also)


def inputs() -> dict[str, str]:
    """{name: sha256} of what the figures are made from."""
    from workbench.axis.questions import self_description_questions

    axis = {"axis": _hash(capping.RUN)} if _axis_file(capping.RUN).is_file() else {}
    return {**axis, "questions": content_hash([one.text for one in self_description_questions()])}


def _study(name: str, run: Path) -> dict[str, Any]:
    from workbench.axis.capping.arms import N_COVARIANCE
    from workbench.axis.capping.controls import random_axes
    from workbench.axis.capping.projections import reply_chats, sampled_activations
    from workbench.axis.jailbreak.harness import ReplyBench, Trying
    from workbench.axis.questions import self_description_questions
    from workbench.axis.self_description.study import self_description
    from workbench.models.loading import load_model
    from workbench.models.sampling import Sampling
    from workbench.personas.vectors import PersonaVector

    axis = PersonaVector.load(run / "vector")
    model = capping.model() if name == capping.MODEL else load_model(name, dtype=capping.DTYPE)
    rows: Any = axis.rows
    spread = sampled_activations(model, reply_chats(model, rows[rows["weight"] != 0], n=N_COVARIANCE), [axis.hook])
    randoms = random_axes(axis, spread, N_RANDOM, seed=capping.SEED)
    bench = ReplyBench(model, _place(run), Trying(Sampling(TOKENS, temperature=0.7, top_p=0.9), batch_size=64, seed=capping.SEED))
    questions = self_description_questions()
    return self_description(bench, axis, questions, randoms, n_samples=N_SAMPLES, seed=capping.SEED).to_dict()


def _place(run: Path) -> Path:
    return run / "self_description"


def _axis_file(run: Path) -> Path:
    return run / "vector" / "persona_vector.json"


def _hash(run: Path) -> str:
    return sha256_file(_axis_file(run).with_suffix(".safetensors"))  # the JSON says when it was made


def _base_run() -> Path:
    return capping.ROOT / "runs" / f"axis-{BASE}"


def _tuned_run() -> Path:
    return capping.ROOT / "runs" / f"axis-{BASE}-chat"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", action="store_true", help="the base model alone")
    runs = {"base": _base_run(), "base_tuned": _tuned_run()}
    found = {name: _base(name, run) for name, run in runs.items()} if parser.parse_args().base else part()
    print(json.dumps(found, indent=1))
