"""Feature views of one SAE in one file: JSON, written all or nothing, with a schema and with what they were read from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, write_json
from workbench.labeling.views.view import FeatureView

KIND, SCHEMA = "feature_views", 1
FILE = f"{KIND}.json"


@dataclass(frozen=True)
class ReadFrom:
    """The index that views were made from: its `key`, tokens that count, and tokens per source."""

    key: str
    n_tokens: int
    sources: Mapping[str, int]

    @classmethod
    def index(cls, index: Any) -> ReadFrom:
        """What a `FeatureIndex` says of itself."""
        return cls(index.key, index.n_tokens, index.sources)


@dataclass(frozen=True)
class StoredViews:
    """Views by feature, in the order they were made in, and what was read for them (None: texts without an index)."""

    views: Mapping[int, FeatureView]
    read_from: ReadFrom | None = None

    @property
    def weights_hash(self) -> str | None:
        """The weights of the SAE that they are of; None of none."""
        return next((view.sae["weights_hash"] for view in self.views.values()), None)


def save_views(views: Iterable[FeatureView], folder: str | Path, *, read_from: ReadFrom | None = None) -> Path:
    """Write `feature_views.json` into `folder`; returns its path. Texts are kept as they are: this is a file for this machine."""
    read = None if read_from is None else asdict(read_from)
    document = {"kind": KIND, "schema": SCHEMA, "read_from": read, "views": [view.to_dict() for view in views]}
    return write_json(Path(folder) / FILE, document)


def load_views(folder: str | Path) -> StoredViews:
    """What `save_views` wrote. Raises WorkbenchError for no such file, another kind or schema, or views of several SAEs."""
    path = Path(folder) / FILE
    document = read_json(path)
    if not isinstance(document, dict) or document.get("kind") != KIND or document.get("schema") != SCHEMA:
        found = document if isinstance(document, dict) else {}
        raise WorkbenchError(
            f"{path} is of kind {found.get('kind')!r}, schema {found.get('schema')!r}",
            f"{KIND} of schema {SCHEMA}",
            "run `workbench label` again",
        )
    try:
        views = [FeatureView.from_dict(row) for row in document["views"]]
        read = None if document["read_from"] is None else ReadFrom(**document["read_from"])
    except (KeyError, TypeError, AttributeError) as error:
        found = f"{path} is incomplete ({error})"
        raise WorkbenchError(found, "what `save_views` writes", "run `workbench label` again") from error
    if len({view.sae.get("weights_hash") for view in views}) > 1:
        raise WorkbenchError(f"{path} holds views of several SAEs", "views of one SAE", "run `workbench label` again")
    return StoredViews({view.feature: view for view in views}, read)
