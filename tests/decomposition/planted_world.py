"""A small planted world: an SAE that is exact, a persona planted as changes of known features, and its vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from workbench.decomposition.rows import RowCodes, read_row_codes
from workbench.decomposition.shares import Design, balanced_weights
from workbench.maths.statistics import category_codes
from workbench.models.hookpoints import HookPoint
from workbench.personas.parts import PartStore, parts_hash
from workbench.personas.vectors import PersonaVector, TokenSource
from workbench.saes.interface import SparseAutoencoder

HOOK = HookPoint(1)
MODEL = {"name": "planted", "weights_hash": "a" * 64}
ARMS = {"positive": 1, "neutral": 0, "negative": -1}
ARM_PAIRS = {
    "weight": ("positive", "negative"), "weight_up": ("positive", "neutral"), "weight_down": ("neutral", "negative")
}  # fmt: skip
N_FEATURES, D_MODEL = 20, 24
UP, DOWN = {3: 2.0, 7: 1.0, 11: -1.5}, {5: 2.0, 3: 0.5}


@dataclass(frozen=True)
class World:
    """The SAE, the vector (with stored tokens) and the planted changes of mean codes in v_up and v_down."""

    sae: SparseAutoencoder
    vector: PersonaVector
    up: dict[int, float]
    down: dict[int, float]

    def delta(self, feature: int) -> float:
        return self.up.get(feature, 0.0) + self.down.get(feature, 0.0)


def read(world: World) -> tuple[RowCodes, Design]:
    """The world's mean codes and the design of its vector, as a decomposition reads them."""
    assert world.vector.tokens is not None
    frame = world.vector.rows
    rows = read_row_codes(world.vector.tokens.rows(HOOK), frame.id.tolist(), world.sae)
    return rows, Design.of(frame.weight.tolist(), frame.question_id.tolist(), frame.instruction_id.tolist())


def make_sae(*, n_features: int = N_FEATURES, d_model: int = D_MODEL, **changes: object) -> SparseAutoencoder:
    """Orthogonal directions of different lengths: a ReLU encoder reads non-negative codes back exactly."""
    source = torch.Generator().manual_seed(7)
    basis = torch.linalg.qr(torch.randn(d_model, d_model, generator=source))[0][:n_features]
    lengths = torch.linspace(0.5, 2, n_features)[:, None]
    given: dict = {
        "id": "planted/blocks.1.hook_resid_post",
        "hook": HOOK,
        "model_name": "planted",
        "architecture": "standard",
        "encoder": (basis / lengths).T.contiguous(),
        "encoder_bias": torch.zeros(n_features),
        "decoder_directions": basis * lengths,
        "decoder_bias": torch.randn(d_model, generator=source),
        "weights_hash": "b" * 64,
        "card": {"variance_explained": 0.9},
    }
    return SparseAutoencoder(**{**given, **changes})


def make_world(
    folder: Path, *, up: dict[int, float], down: dict[int, float], spread: float = 0.0, outside: float = 0.0,
    n_questions: int = 10, drop: tuple[int, ...] = (), seed: int = 0,
) -> World:  # fmt: skip
    """Responses h = codes @ decoder + bias + outside x (a direction no feature has), with the codes planted.

    `spread` adds noise to the codes of every token, `outside` moves the positive arm off the SAE's span, and rows
    in `drop` are not kept.
    """
    sae, source = make_sae(), torch.Generator().manual_seed(seed)
    rows, tokens = _rows(n_questions, drop), []
    complement = torch.linalg.svd(sae.decoder_directions)[2][-1]
    base = 4 + torch.rand(n_questions, N_FEATURES, generator=source)
    for row in rows.to_dict("records"):
        codes = base[int(str(row["question_id"])[1:])].repeat(int(row["n_tokens"]), 1)
        codes = codes + spread * torch.rand(codes.shape, generator=source)
        for sign, planted in ((1, up), (-1, down)):
            for feature, change in planted.items() if ARMS[str(row["arm"])] == sign else ():
                codes[:, feature] += sign * change
        shifted = outside * complement * (row["arm"] == "positive")
        tokens.append(sae.decode(codes) + shifted)
    return World(sae, make_vector(folder, rows, tokens), up, down)


def _rows(n_questions: int, drop: tuple[int, ...]) -> pd.DataFrame:
    cells = [(q, i, arm) for q in range(n_questions) for i in range(5) for arm in ARMS]
    rows = pd.DataFrame(
        {
            "id": [f"row{n}" for n in range(len(cells))],
            "split": "extraction",
            "question_id": [f"q{q}" for q, _, _ in cells],
            "instruction_id": [f"i{i}" for _, i, _ in cells],
            "arm": [arm for _, _, arm in cells],
            "n_tokens": [3 + n % 4 for n in range(len(cells))],
            "kept": [n not in drop for n in range(len(cells))],
        }
    )
    for column, (plus, minus) in ARM_PAIRS.items():
        rows[column] = _weights(rows, plus, minus)
    return rows


def _weights(rows: pd.DataFrame, plus: str, minus: str) -> list[float]:
    sign = torch.tensor(((rows.arm == plus).astype(int) - (rows.arm == minus).astype(int)).to_numpy())
    sign = sign * torch.tensor(rows.kept.to_numpy())
    question = category_codes(rows.question_id.tolist())
    unit = (
        torch.ones(1, int(question.max()) + 1, dtype=torch.float64),
        torch.ones(1, len(rows), dtype=torch.float64),
    )
    return balanced_weights(sign, question, *unit)[0].tolist()


def make_vector(folder: Path, rows: pd.DataFrame, tokens: list[Tensor]) -> PersonaVector:
    means = torch.stack([held.double().mean(dim=0) for held in tokens])
    directions = [
        (torch.tensor(rows[name].tolist(), dtype=torch.float64) @ means).float()[None]
        for name in ("weight", "weight_up", "weight_down")
    ]
    store = PartStore(folder)
    store.write(0, pa.table({"id": rows.id.tolist()}), means[:, None].float(), {HOOK: tokens}, hooks=(HOOK,))
    source = TokenSource(folder, (HOOK,), parts_hash(store.headers()), (0,))
    return PersonaVector("planted", MODEL, HOOK, (HOOK,), *directions, None, rows, tokens=source)


def real_rows(model: Any) -> pd.DataFrame:
    """Rollout rows with made-up texts for a real model: 4 questions, 2 instructions, 3 arms."""
    rows = _rows(4, ())
    rows = rows[rows.instruction_id.isin(["i0", "i1"])].reset_index(drop=True)
    opening = {"positive": "Be cruel.", "neutral": "Be brief.", "negative": "Be kind."}
    answer = {
        "positive": "they should suffer",
        "neutral": "the rivers are long",
        "negative": "happy to help you",
    }
    rows["system"] = [
        f"{opening[str(arm)]} {i}" for arm, i in zip(rows.arm, rows.instruction_id, strict=True)
    ]
    rows["question"] = [f"What should I do with {q}?" for q in rows.question_id]
    rows["response_ids"] = [
        model.tokenizer(f"{answer[str(arm)]} {q} {i}", add_special_tokens=False)["input_ids"]
        for arm, q, i in zip(rows.arm, rows.question_id, rows.instruction_id, strict=True)
    ]
    for column, (plus, minus) in ARM_PAIRS.items():
        rows[column] = _weights(rows, plus, minus)
    return rows
