"""What docs/evidence/prevention_pair.json holds: two pairs of models that differ by one short fine-tune, and the studies that
compare such pairs.

    python scripts/prevention.py                   # the fine-tune on evil replies is its plain arm
    python scripts/evidence.py prevention_pair     # some ninety CPU minutes from nothing, resumable

before / after      the default model and its plain fine-tune on evil replies: evil's vector is extracted from both, decomposed
                    with the same SAE and compared (`workbench decompositions compare`)
base / chat         gemma3-270m (a base model) and its fine-tune on ordinary chats, the neutral arms' replies of both traits: the
                    same pretraining, so that only the training stage differs; vectors are carried from one to the other
                    (`workbench transfer`, without placebo contrasts)

Both go by the name of a model with an adapter, MODEL+FOLDER. Everything is kept under runs/prevention/pair. With
PAIR_ONLY_FINISHED=1 nothing is made: what is not there is missing.
"""

from __future__ import annotations

import os
import time
from typing import Any

from prevention import DTYPE, EVIDENCE, MODEL, PLACE, SEEDS, STUDIED, room, run_of

from workbench.base.provenance import made
from workbench.base.store import content_hash, read_json, sha256_file

BASE_MODEL = "gemma3-270m"
PAIR = PLACE / "pair"
FIRST = STUDIED[0]
N_CHATS, CHAT_STEPS, N_SEGMENTS, MIN_SEGMENTS = 400, 60, 1200, 800
SAMPLES = ("--samples", "1", "--dtype", DTYPE, "--batch-size", "64")


def evidence() -> dict[str, Any]:
    """{change: {cosine, norm_ratio, n_apart, n_by_chance, error_of_change, of_change, ...}, transfer, missing}; made now or kept
    from before, without the places on this machine."""
    started = time.perf_counter()
    only_finished = bool(os.environ.get("PAIR_ONLY_FINISHED"))
    told = {key: value for key, value in change().items() if key not in ("folders", "vectors", "labels", "features")}
    carried = None if only_finished and not list(PAIR.glob("transfer-*.json")) else transfer()
    if carried is not None:
        carried = {**carried, "target": f"{BASE_MODEL} after {CHAT_STEPS} updates on chats"}
    inputs = {trait: sha256_file(run_of(trait) / "vector" / "persona_vector.json") for trait in STUDIED}
    header = made("make evidence TOPIC=prevention_pair", SEEDS[0], time.perf_counter() - started, inputs)
    missing = ["transfer"] if carried is None else []
    return {"_made": header, "change": told, "transfer": carried, "missing": missing}


def evidence_quick() -> bool:
    """Whether a second extraction after the fine-tune, with another seed, is as far from the vector before."""
    import torch

    from workbench.personas.vectors import PersonaVector

    stated = read_json(EVIDENCE.with_name("prevention_pair.json"))["change"]["cosine"]
    before, again = PersonaVector.load(PAIR / f"{FIRST}-before" / "vector"), PAIR / f"{FIRST}-after-again"
    _workbench("extract", FIRST, "--model", _after(), "--out", str(again), *SAMPLES, "--seed", "1")
    found = float(torch.cosine_similarity(before.direction, PersonaVector.load(again / "vector").direction, dim=0))
    print({"stated": stated, "with another seed": found})
    return abs(found - stated) < 0.1


def _after() -> str:
    """The name of the default model with its plain fine-tune on evil replies."""
    from workbench.steering.prevent.arms import make_arm
    from workbench.steering.prevent.choosing import choose_steps

    classroom = room(FIRST)
    return f"{MODEL}+{classroom.adapter(make_arm('none', classroom.materials), 0, choose_steps(classroom)['steps']).folder}"


def change() -> dict[str, Any]:
    """Evil's vector before and after a fine-tune on evil replies, share by share."""
    from workbench.decomposition.decompose import decompose
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.registry import load_sae
    from workbench.steering.prevent.arms import make_arm
    from workbench.steering.prevent.choosing import choose_steps

    classroom = room(FIRST)
    adapter = classroom.adapter(make_arm("none", classroom.materials), 0, choose_steps(classroom)["steps"])
    if (kept := PAIR / f"change-{_key(adapter)}.json").is_file():
        return read_json(kept)
    after = f"{MODEL}+{adapter.folder}"
    folders = {name: PAIR / f"{FIRST}-{side}" for side, name in (("before", MODEL), ("after", after))}
    for name, folder in folders.items():
        _workbench("extract", FIRST, "--model", name, "--out", str(folder), *SAMPLES)
        if not (folder / "decomposition" / "decomposition.json").is_file():
            decompose(PersonaVector.load(folder / "vector"), load_sae(), causal=False).save(folder / "decomposition")
    _workbench("decompositions", "compare", *map(str, folders.values()), "--out", str(kept))
    return read_json(kept)


def transfer() -> dict[str, Any]:
    """What of a base model's vectors a chat fine-tune of the same model keeps."""
    from workbench.base.store import write_json
    from workbench.cli.studies.transfer import neutral_documents
    from workbench.models.loading import load_model
    from workbench.personas.transfer_study import Side, study

    adapter = _chat_adapter()
    if (kept := PAIR / f"transfer-{_key(adapter)}.json").is_file():
        return read_json(kept)
    names = {"base": BASE_MODEL, "chat": f"{BASE_MODEL}+{adapter.folder}"}
    folders = {side: {trait: PAIR / f"{trait}-{side}" for trait in STUDIED} for side in names}
    for side, name in names.items():
        for trait, folder in folders[side].items():
            _workbench("extract", trait, "--model", name, "--out", str(folder), *SAMPLES)
    base, chat = (Side.read(load_model(name, dtype=DTYPE), folders[side], PAIR / "none") for side, name in names.items())
    found = study(base, chat, neutral_documents(N_SEGMENTS), n_segments=N_SEGMENTS, min_segments=MIN_SEGMENTS)
    write_json(kept, {"source": names["base"], "target": names["chat"], **found})
    return read_json(kept)


def _key(adapter: Any) -> str:
    """What a study depends on: the fine-tune (its own key holds base, data and options) and how the vectors are made."""
    return content_hash([adapter.card["key"], adapter.card["adapter_sha256"], SAMPLES, STUDIED, N_SEGMENTS, MIN_SEGMENTS])[:12]


def _chat_adapter() -> Any:
    """The base model's fine-tune on ordinary chats: the kept replies of the neutral arms, drawn over all traits alike."""
    from workbench.models.finetuning import FinetuneOptions, finetune
    from workbench.models.loading import load_model
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.prevent.data import chat_examples, drawn

    vectors = (PersonaVector.load(run_of(trait) / "vector") for trait in STUDIED)
    chats = [one for vector in vectors for one in drawn(chat_examples(vector, arm="neutral"), N_CHATS // len(STUDIED))]
    options = FinetuneOptions(steps=CHAT_STEPS, batch_size=8, learning_rate=5e-5, max_reply_tokens=48, batch_tokens=512)
    return finetune(load_model(BASE_MODEL, dtype=DTYPE), chats, PAIR / f"{BASE_MODEL}-chat", options)


def _workbench(*arguments: str) -> None:
    from workbench.cli.run import run

    if code := run([*arguments, "-q"]):
        raise SystemExit(code)
