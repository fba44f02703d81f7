"""Vectors with answers for the falsifier: a planted persona, and the same with an artefact in place of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tests.decomposition.planted_world import ARMS, HOOK, MODEL, make_sae, make_vector
from tests.decomposition.planted_world import _rows as design_rows
from tests.decomposition.planted_world import _weights as weights_of
from workbench.decomposition.decompose import decompose
from workbench.decomposition.falsify import Falsification, falsify
from workbench.decomposition.falsify.material import Material, read_answers
from workbench.decomposition.placebos import PlaceboCodes
from workbench.models.hookpoints import HookPoint
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.vectors import PersonaVector

HOOKS = (HookPoint(0), HOOK, HookPoint(2))
N_FEATURES, D_MODEL = 48, 64
SIZES: dict[str, Any] = {"n_features": N_FEATURES, "d_model": D_MODEL}
PLANTED = {3: 1.5, 17: 1.0, 31: -1.0}
N_PLACEBOS = 24
Extra = Callable[[dict, Tensor, Tensor], Tensor]
"""(row, token ids [t], tokens [t, d_model]) -> tokens: what is added to an answer."""


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def world_sae() -> Any:
    """48 orthogonal features in 64 dimensions."""
    return make_sae(**SIZES)


def answers(folder: Path, *, planted: dict[int, float] = PLANTED, change: Callable[[pd.DataFrame], None] | None = None,
            extra: Extra | None = None, noise: float = 1.5, seed: int = 0) -> PersonaVector:  # fmt: skip
    """A vector from answers of 6 to 9 tokens whose codes vary by token, question and answer.

    `change` alters the rows (lengths, texts, token ids, arms) before the activations are made, `extra` the activations.
    """
    sae, draw = world_sae(), source(seed)
    rows = design_rows(12, ())
    rows["n_tokens"] = 6 + torch.randint(0, 4, (len(rows),), generator=draw).numpy()
    rows["response"] = "some words"
    rows["response_ids"] = [torch.randint(0, 40, (n,), generator=draw).numpy() for n in rows["n_tokens"]]
    if change is not None:
        change(rows)
        for column, (plus, minus) in {"weight": ("positive", "negative"), "weight_up": ("positive", "neutral"),
                                      "weight_down": ("neutral", "negative")}.items():  # fmt: skip
            rows[column] = weights_of(rows, plus, minus)
    base = 6 + torch.rand(12, N_FEATURES, generator=draw)
    tokens = []
    for row in rows.to_dict("records"):
        ids = torch.tensor(np.asarray(row["response_ids"]))
        codes = base[int(str(row["question_id"])[1:])] + noise * torch.randn(len(ids), N_FEATURES, generator=draw)
        codes = codes + 0.3 * noise * torch.randn(N_FEATURES, generator=draw)
        for feature, amount in planted.items():
            codes[:, feature] += amount * ARMS[str(row["arm"])]
        held = sae.decode(codes.clamp_min(0))
        held = held + 0.05 * torch.randn(held.shape, generator=draw)  # no dimension without variance
        tokens.append(held if extra is None else extra(row, ids, held))
    made = make_vector(folder, rows, tokens)
    around = made.directions + 0.1 * made.directions.norm() / 5 * torch.randn(3, made.d_model, generator=draw)
    around[1] = made.directions[0]
    evidence = {"auc_stripped": 0.9, "auc_stripped_interval": [0.8, 0.97], "auc_rank_p": 0.001}
    return replace(made, hooks=HOOKS, directions=around, up=None, down=None, evidence=evidence)


def placebos(seed: int = 1) -> tuple[PlaceboCodes, PlaceboVectors]:
    """24 contrasts that move other features a little; their vectors agree with their neighbours at .9 or so."""
    sae, draw = world_sae(), source(seed)
    deltas = 0.2 * torch.randn(N_PLACEBOS, N_FEATURES, generator=draw)
    vectors = deltas @ sae.decoder_directions
    names = tuple(f"p{i}" for i in range(N_PLACEBOS))
    related: tuple[tuple[str, ...], ...] = ((),) * N_PLACEBOS
    codes = PlaceboCodes(names, related, vectors, deltas, torch.full_like(deltas, 0.05),
                         {"id": sae.id, "weights_hash": sae.weights_hash}, MODEL)  # fmt: skip
    blocks = torch.stack([vectors + 0.4 * vectors.norm() / N_PLACEBOS**0.5 / 5 * torch.randn(vectors.shape, generator=draw)
                          for _ in HOOKS], dim=1)  # fmt: skip
    blocks[:, 1] = vectors
    return codes, PlaceboVectors(names, related, HOOKS, blocks, MODEL)


def other_seed(same: bool = True) -> Any:
    """The SAE's features in another order and a little turned; or features of its own."""
    sae, draw = world_sae(), source(5)
    rows = sae.decoder_directions[torch.randperm(N_FEATURES, generator=draw)]
    drawn = torch.randn(rows.shape, generator=draw)
    rows = rows + 0.05 * drawn if same else drawn
    return make_sae(**SIZES, id="planted/other", decoder_directions=rows, weights_hash="c" * 64)


def soft_frozen() -> Any:
    """A decoder of random directions."""
    drawn = torch.randn(N_FEATURES, D_MODEL, generator=source(9))
    return make_sae(**SIZES, id="planted/soft-frozen", decoder_directions=drawn, weights_hash="d" * 64)


def everything() -> dict[str, Any]:
    """All that a vector can be held against."""
    codes, vectors = placebos()
    return {"placebos": codes, "placebo_vectors": vectors, "other_seed": other_seed(), "controls": {"soft-frozen": soft_frozen()}}


def verdict(vector: PersonaVector, **changes: Any) -> Falsification:
    """The vector put to every check, its decomposition of few atoms (the world is small); `changes` replace what is given."""
    given = {**everything(), **changes}
    parts = decompose(vector, world_sae(), placebos=given["placebos"], n_atoms=4, n_bootstrap=20)
    return falsify(vector, world_sae(), parts=parts, **given)


def material(vector: PersonaVector, **changes: Any) -> Material:
    """What the checks read of `vector`, without its decomposition (those that need it are tested through `verdict`)."""
    sae, (codes, vectors) = world_sae(), placebos()
    rows: Any = vector.rows
    used = rows[rows["weight"] != 0].reset_index(drop=True) if len(rows) else None
    read = None if used is None or vector.tokens is None else read_answers(used, vector.tokens.rows(HOOK))
    unknown: Any = None
    made = Material(vector, sae, vector.at(HOOK).double(), sae.decoder_directions, unknown, read,
                    None if read is None else read.tokens, codes, vectors, {}, None, 0)  # fmt: skip
    return replace(made, **changes)


def bare(direction: Tensor) -> PersonaVector:
    """A vector of which only the direction is known."""
    return PersonaVector.from_direction(direction, trait="bare", model=MODEL, hook=HOOK)
