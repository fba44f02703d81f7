"""A trait written to a folder: the files that `load_trait` reads, all of them or none."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import describe_os_error, make_folder, write_yaml
from workbench.personas.traits import (
    ARMS,
    SPLITS,
    TRAIT_SCHEMA,
    Category,
    ReplyPair,
    Trait,
    check_name,
    load_trait,
)


def write_trait(trait: Trait, parent: str | Path) -> Path:
    """Write `<parent>/<name>/trait.yaml` (and pairs.yaml, traps.yaml where there are any); returns the new folder.

    The files are written beside it, read back and compared, and then get their place in one step. Raises
    WorkbenchError when the folder exists, or when the trait is none that `load_trait` accepts; then nothing is left.
    """
    target = free_folder(trait.name, parent)
    was_there = target.parent.exists()
    make_folder(target.parent)
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{trait.name}.", dir=target.parent))
        for name, document in _documents(trait).items():
            write_yaml(temporary / name, document, literal=True)
        _check_reads_back(trait, temporary)
        temporary.chmod(0o755)
        os.rename(temporary, target)
    except OSError as error:
        raise describe_os_error(error, target) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if not was_there:
            with contextlib.suppress(OSError):  # it holds the trait, unless that failed
                target.parent.rmdir()
    return target


def free_folder(name: str, parent: str | Path) -> Path:
    """`<parent>/<name>` for a new trait; refuses a name that is none, and a folder that exists."""
    target = Path(parent) / check_name(name, "The new trait")
    if target.exists():
        raise WorkbenchError(
            f"{target} exists already.",
            "A new name.",
            "Choose another name with --name, or another folder with --out.",
        )
    return target


def _documents(trait: Trait) -> dict[str, dict[str, Any]]:
    head = {"schema": TRAIT_SCHEMA, "author": trait.author}
    documents = {"trait.yaml": _trait_document(trait)}
    if trait.contrast_pairs or trait.control_pairs:
        pairs = {"contrast": trait.contrast_pairs, "controls": trait.control_pairs}
        documents["pairs.yaml"] = {**head, **{key: list(map(_pair, value)) for key, value in pairs.items()}}
    if trait.traps:
        documents["traps.yaml"] = {
            **head,
            "traps": _each(trait.traps, ("id", "kind", "prompt", "trait", "other")),
        }
    return documents


def _trait_document(trait: Trait) -> dict[str, Any]:
    names = ("name", "adjective", "opposite", "description", "author")
    note = {"coherence_note": trait.coherence_note} if trait.coherence_note else {}
    return {
        "schema": TRAIT_SCHEMA,
        **{name: getattr(trait, name) for name in names},
        "instructions": _each(trait.instructions, ("id", *(arm for arm in ARMS if arm in trait.arms))),
        "questions": {split: _each(trait.questions_of(split), ("id", "text")) for split in SPLITS},
        "rubric": trait.rubric,
        "taxonomy": list(map(_category, trait.taxonomy)),
        **note,
    }


def _each(items: Sequence[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    return [{name: getattr(item, name) for name in names} for item in items]


def _category(category: Category) -> dict[str, Any]:
    (document,) = _each([category], ("id", "kind", "name", "description", "shows_trait"))
    return {**document, "words": list(category.words)}


def _pair(pair: ReplyPair) -> Mapping[str, Any]:
    own = ("id", "sub") if pair.kind == "contrast" else ("id", "kind")
    return _each([pair], (*own, "split", "prompt", "trait", "opposite"))[0]


def _check_reads_back(trait: Trait, folder: Path) -> None:
    try:
        same = load_trait(folder) == trait
    except WorkbenchError as error:  # the temporary folder's name says nothing to anyone
        found = error.found.replace(str(folder), trait.name)
        raise WorkbenchError(found, error.expected, error.remedy) from error
    if not same:
        raise WorkbenchError(
            f"{trait.name}: its files do not read back as they were written.",
            "Texts without control characters.",
            "Remove such characters from the texts.",
        )
