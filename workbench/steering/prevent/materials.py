"""The material of a trait's prevention study, from its finished runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.store import content_hash, read_json, write_json
from workbench.models.capture import capture
from workbench.models.finetuning import ChatExample
from workbench.models.prompts import ChatTokens, tokenize_chat
from workbench.personas.traits import Trait
from workbench.personas.vectors import PersonaVector

from ..directions import denoised, paired_rows
from .arms import Materials
from .lessons import Lesson, check_roles, ordinary_lesson, texts_hash, trait_lesson

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

N_FEATURES = 32
"""Features that the denoised vector is rebuilt from."""


def gather(
    trait: Trait,
    run_folder: str | Path,
    *,
    lesson: Lesson | None = None,
    parts: Decomposition | None = None,
    sae: SparseAutoencoder | None = None,
    n_features: int = N_FEATURES,
) -> Materials:
    """The materials in a finished extraction; with its decomposition and SAE, the denoised vector too.

    lesson: data of the user's own instead of the trait's kept replies. Raises WorkbenchError where a question of it is one that
    the trait is measured on.
    """
    vector = PersonaVector.load(Path(run_folder) / "vector")
    taught = lesson or trait_lesson(vector)
    check_roles(taught, trait)
    rebuilt = None if parts is None or sae is None else denoised(parts, sae, n_features)
    sham = ordinary_lesson(vector, len(taught.train))
    return Materials(trait, vector, taught, sham, paired_rows(run_folder, vector.hook).x, denoised=rebuilt)


def with_projections(materials: Materials, model: Model, folder: str | Path) -> Materials:
    """The materials with `projections` for filtering; what was measured once is kept in `folder`."""
    key = content_hash([model.weights_hash, str(model.dtype), str(materials.vector.hook), materials.vector.direction,
                        texts_hash(materials.lesson.train), texts_hash(materials.sham.train)])  # fmt: skip
    path = Path(folder) / f"projections-{key[:16]}.json"
    if not path.is_file():
        write_json(path, projection_differences(model, materials).tolist())
    return replace(materials, projections=torch.tensor([math.nan if one is None else one for one in read_json(path)]))


def projection_differences(model: Model, materials: Materials) -> Tensor:
    """[n_train]: how much further along the vector each reply lies than ordinary replies to the same question, in norms.

    The mean activation over the reply at the vector's hook, on its unit direction, less the mean of the neutral arm's replies to
    that question (of all of them where it has none). Source: Chen et al. 2025 (arXiv 2507.21509), section 6, with the neutral
    arm's replies in place of newly sampled ones.
    """
    hook, unit = materials.vector.hook, torch.nn.functional.normalize(materials.vector.direction, dim=0)
    ordinary = (*materials.sham.train, *materials.sham.held_out)
    rows = [_last_reply(model, one) for one in (*materials.lesson.train, *ordinary)]
    along = torch.full((len(rows),), torch.nan)
    for indices, pooled in capture(model, rows, [hook]):
        along[indices] = torch.stack([one.means[0] @ unit for one in pooled]) / float(model.norm_medians([hook])[0])
    own, other = along.split([len(materials.lesson.train), len(ordinary)])
    return own - torch.tensor([_reference(one, ordinary, other) for one in materials.lesson.train])


def _last_reply(model: Model, example: ChatExample) -> ChatTokens:
    """The chat with its last reply as the only one in the span."""
    chat = tokenize_chat(model, [*example.messages, {"role": "assistant", "content": example.reply}])
    return ChatTokens(chat.ids, {"response": chat.spans["response"][-1:]})


def _reference(example: ChatExample, ordinary: tuple[ChatExample, ...], along: Tensor) -> float:
    same = torch.tensor([one.messages[-1] == example.messages[-1] for one in ordinary])
    return float(along[same].nanmean() if bool(same.any()) else along.nanmean())
