"""The persona vector: one direction per hook point, with the rows, the weights and the evidence behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import read_parquet, sha256_file, write_parquet
from workbench.base.tensors import load_artifact, save_artifact
from workbench.base.untrusted import check_types, refuses_damage
from workbench.models.hookpoints import HookPoint
from workbench.personas.parts import PartHeader, PartStore, parts_hash

if TYPE_CHECKING:
    import pandas

KIND, SCHEMA = "persona_vector", 1
_ROWS_FILE = "rows.parquet"
_DIRECTIONS = ("directions", "up", "down", "unfiltered")


@dataclass(frozen=True)
class TokenSource:
    """Where the token activations of the rollouts lie, and the hash that they must have.

    `parts` are the numbers of the parts that belong to the source (other rollouts may stand in the same
    folder); `sha256` is over their rows and tensors.
    """

    folder: Path
    hooks: tuple[HookPoint, ...]
    sha256: str
    parts: tuple[int, ...]

    def rows(self, hook: HookPoint) -> Iterator[tuple[str, Tensor]]:
        """(row id, token activations [n_tokens, d_model]) for each row, each id once; sinks are left out.

        Raises WorkbenchError for a hook without tokens, or when the parts are not the ones that were
        recorded.
        """
        if hook not in self.hooks:
            raise unknown_name("hook with stored tokens", str(hook), [str(known) for known in self.hooks])
        headers = self._headers()
        if parts_hash(headers) != self.sha256:
            raise self._changed()
        seen: set[str] = set()
        for header in headers:
            for row_id, tokens in PartStore(self.folder).tokens(header, hook):
                if row_id not in seen:
                    seen.add(row_id)
                    yield row_id, tokens

    def intact(self) -> bool:
        """Whether the parts are there with the recorded hash (tensors are checked when they are read)."""
        return parts_hash(self._headers()) == self.sha256

    def _headers(self) -> list[PartHeader]:
        return [header for header in PartStore(self.folder).headers() if header.number in self.parts]

    def _changed(self) -> WorkbenchError:
        return WorkbenchError(
            f"the token activations in {self.folder} are not those that the vector was made from",
            f"parts with the hash {self.sha256[:12]}",
            "extract the vector again, or give the model so that the rollouts are read through it once more",
        )


@dataclass(frozen=True, eq=False, repr=False)
class PersonaVector(Shown):
    """Directions that point toward the trait, with what they were made from.

    At hook h:  directions[h] = sum_i rows.weight[i] * mean_i(h),  mean_i = mean activation over the response
    tokens of row i. The weights of the positive arm sum to 1, those of the negative arm to -1, each question
    weighing the same. `up` = positive - neutral and `down` = neutral - negative (columns weight_up,
    weight_down); with the same questions in all arms, directions = up + down. `unfiltered` leaves the judge
    out (weight_unfiltered). Shapes [n_hooks, d_model], float32, in units of the residual stream. `up`,
    `down`, `unfiltered` are None where there was nothing to make them from. Source: Chen et al. 2025 (arXiv
    2507.21509), section 2.
    """

    trait: str
    model: dict[str, Any]
    hook: HookPoint
    hooks: tuple[HookPoint, ...]
    directions: Tensor
    up: Tensor | None
    down: Tensor | None
    unfiltered: Tensor | None
    rows: pandas.DataFrame
    evidence: dict[str, Any] = field(default_factory=dict)
    tokens: TokenSource | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.directions.ndim != 2 or len(self.directions) != len(self.hooks):
            raise WorkbenchError(
                f"directions of shape {tuple(self.directions.shape)} for {len(self.hooks)} hook points",
                "a tensor [n_hooks, d_model]",
                "give one direction per hook point",
            )
        if not bool(torch.isfinite(self.directions).all()):
            raise WorkbenchError(
                "a direction holds NaN or infinity", "finite numbers", "check the activations"
            )
        self.index(self.hook)

    @property
    def direction(self) -> Tensor:
        """The direction [d_model] at the chosen hook; it points toward the trait."""
        return self.at(self.hook)

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.directions.shape[1]

    def index(self, hook: HookPoint | str) -> int:
        """The row of `hook` in the direction tensors."""
        wanted = HookPoint.parse(hook)
        if wanted not in self.hooks:
            raise unknown_name("hook point in this vector", str(wanted), [str(known) for known in self.hooks])
        return self.hooks.index(wanted)

    def at(self, hook: HookPoint | str) -> Tensor:
        """The direction [d_model] at `hook`."""
        return self.directions[self.index(hook)]

    @classmethod
    def from_direction(
        cls, direction: Tensor, *, trait: str, model: Mapping[str, Any] | str, hook: HookPoint | str
    ) -> PersonaVector:
        """A bare imported vector [d_model]: no rows, no tokens, no evidence, so no shares can be computed
        from it."""
        where = HookPoint.parse(hook)
        described = {"name": model} if isinstance(model, str) else dict(model)
        directions = direction.detach().to("cpu", torch.float32).reshape(1, -1)
        return cls(trait, described, where, (where,), directions, None, None, None, empty_rows())

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write rows.parquet, persona_vector.safetensors and, last, persona_vector.json; returns the JSON's
        path."""
        target = Path(folder)
        rows_file = write_parquet(target / _ROWS_FILE, self.rows)
        stacked = {name: getattr(self, name) for name in _DIRECTIONS if getattr(self, name) is not None}
        document = {
            "trait": self.trait,
            "model": self.model,
            "hook": str(self.hook),
            "hooks": [str(hook) for hook in self.hooks],
            "evidence": self.evidence,
            "tokens": _tokens_document(self.tokens, target),
            "rows_sha256": sha256_file(rows_file),
            "provenance": self.provenance,
        }
        return save_artifact(target, KIND, SCHEMA, document, stacked)

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> PersonaVector:
        """The vector saved in `folder`; `tokens` is None when its activations are no longer where they
        were."""
        source = Path(folder)
        document, tensors = load_artifact(source, KIND, SCHEMA)
        check_types(document, trait=str, model=dict, evidence=dict, provenance=dict)
        if sha256_file(source / _ROWS_FILE) != document["rows_sha256"]:
            raise WorkbenchError(
                f"{source / _ROWS_FILE} does not match the hash in {KIND}.json",
                "the files of one saved vector",
                "restore them, or extract the vector again",
            )
        return cls(
            trait=document["trait"],
            model=document["model"],
            hook=HookPoint.parse(document["hook"]),
            hooks=tuple(map(HookPoint.parse, document["hooks"])),
            **{name: tensors.get(name) for name in _DIRECTIONS},  # pyright: ignore[reportArgumentType]
            rows=read_parquet(source / _ROWS_FILE).to_pandas(),
            evidence=document["evidence"],
            tokens=_tokens_from(document["tokens"], source),
            provenance=document["provenance"],
        )

    def __repr__(self) -> str:
        return f"PersonaVector(trait={self.trait!r}, model={self.model.get('name')!r}, hook='{self.hook}')"


ROW_TYPES = {
    **dict.fromkeys(("id", "split", "arm", "question_id", "instruction_id"), "str"),
    "sample": "int64",
    **dict.fromkeys(("system", "question", "response"), "str"),
    "response_ids": "object",
    **dict.fromkeys(("n_tokens", "n_sinks"), "int64"),
    "outcome": "str",
    **dict.fromkeys(("score", "coherence"), "float64"),
    "kept": "bool",
    **dict.fromkeys(("weight", "weight_up", "weight_down", "weight_unfiltered"), "float64"),
}


def empty_rows() -> pandas.DataFrame:
    """A row table with the columns of ROW_TYPES and no rows."""
    import pandas

    return pandas.DataFrame({name: pandas.Series([], dtype=kind) for name, kind in ROW_TYPES.items()})


def _tokens_document(tokens: TokenSource | None, beside: Path) -> dict[str, Any] | None:
    if tokens is None:
        return None
    # Relative first: a run folder that is moved as a whole keeps its tokens.
    folder = tokens.folder.resolve()
    try:
        relative = os.path.relpath(folder, beside.resolve())
    except ValueError:  # another drive
        relative = str(folder)
    hooks = [str(hook) for hook in tokens.hooks]
    return {
        "folder": Path(relative).as_posix(),
        "hooks": hooks,
        "sha256": tokens.sha256,
        "parts": tokens.parts,
    }


def _tokens_from(document: dict[str, Any] | None, beside: Path) -> TokenSource | None:
    if document is None:
        return None
    hooks = tuple(map(HookPoint.parse, document["hooks"]))
    folder = (beside / document["folder"]).resolve()
    source = TokenSource(folder, hooks, document["sha256"], tuple(document["parts"]))
    return source if source.intact() else None
