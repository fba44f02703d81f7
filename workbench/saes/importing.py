"""Other people's SAEs on the user's shelf: read, folded to raw activations, written as a SAELens folder with its origin.

    from workbench.saes.importing import import_sae
    folder = import_sae("trainer_1", model="Qwen/Qwen2.5-7B-Instruct", hook="blocks.15.hook_resid_post").folder
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import describe_os_error, make_folder, sha256_file
from workbench.models.hookpoints import HookPoint
from workbench.saes.registry import list_saes, user_shelf

if TYPE_CHECKING:
    from workbench.saes.formats.files import Foreign

SAE_FILES = ("cfg.json", "sae_weights.safetensors")
_ID = re.compile(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*){0,5}")


@dataclass(frozen=True)
class Imported:
    """Where an imported SAE lies, and what was noticed on the way."""

    id: str
    folder: Path
    format: str
    notes: tuple[str, ...]
    card: dict[str, Any]


def import_sae(
    path: str | os.PathLike[str],
    format: str = "auto",
    *,
    model: str | None = None,
    hook: HookPoint | str | None = None,
    id: str | None = None,
    out: str | os.PathLike[str] | None = None,
    replace: bool = False,
) -> Imported:
    """Bring the SAE in a foreign folder or file to the user's shelf (or to the folder `out`).

    `model` and `hook` say what it reads where the files do not; `id` is its name on the shelf, by default model/hook.
    Raises WorkbenchError for files that cannot be read safely, for a missing model or hook, for an SAE that does not
    fit the model, and for an id that is taken, unless `replace`. Nothing is left half-written.
    """
    from workbench.saes.formats import read_foreign

    path = Path(path)
    name, sae = read_foreign(path, format)
    origin = {
        "format": name,
        "layout": sae.layout,
        "source": path.resolve().name,
        "files": {file.name: sha256_file(file) for file in sae.files},
        "config": sae.config,
    }
    return shelve(sae, origin, source=str(path), model=model, hook=hook, id=id, out=out, replace=replace)


def shelve(
    sae: Foreign,
    origin: Mapping[str, Any],
    *,
    source: str,
    model: str | None = None,
    hook: HookPoint | str | None = None,
    id: str | None = None,
    out: str | os.PathLike[str] | None = None,
    replace: bool = False,
) -> Imported:
    """Write a foreign SAE as a SAELens folder whose card states `origin`; the options are those of `import_sae`."""
    from workbench.saes.formats import saelens

    sae, said, notes = _placed(sae, source, model, hook)
    described = _described(sae, notes)
    sae = dataclasses.replace(sae, model=described["name"])
    assert sae.hook is not None
    id = checked_id(id or f"{described['name'].rstrip('/').split('/')[-1].lower()}/{sae.hook}")
    folder = Path(out) if out is not None else user_shelf() / id
    card: dict[str, Any] = {"imported": {**origin, "said_by_user": said, "notes": [*sae.notes, *notes]}}
    if described.get("weights_hash"):
        card["model"] = {"name": described["name"], "weights_hash": described["weights_hash"]}
    own = saelens.finished(sae, id=id, hash="", card=card)
    put(folder, id if out is None else None, replace, lambda place: saelens.write(own, place, dtype=sae.storage))
    return Imported(id if out is None else str(folder), folder, str(origin["format"]), (*sae.notes, *notes), card)


def checked_id(id: str) -> str:
    """`id` when it can name a folder on the shelf."""
    if not _ID.fullmatch(id) or ".." in id:
        raise WorkbenchError(
            f"the id {id!r} cannot be a folder's name", "letters, digits, . _ - and /", "choose another with --name"
        )
    return id


def put(folder: Path, id: str | None, replace: bool, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary folder, then put it in the place of `folder`: all or nothing.

    With `replace` an older SAE is moved aside first and deleted last; any other folder with something in it is refused.
    """
    folder = Path(os.path.realpath(folder))  # through a link, so that the link stays one
    if not replace and (_taken(folder) or (id is not None and any(entry.id == id for entry in list_saes()))):
        what = f"the shelf has an SAE {id!r} already" if id is not None else f"{folder} is not empty"
        raise WorkbenchError(what, "a new place", "choose another with --name (or --out), or pass --replace")
    if _taken(folder):
        _check_sae_alone(folder)
    make_folder(folder.parent)
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:60]}.", dir=folder.parent))
        write(temporary)
        temporary.chmod(0o755)
        _swap(temporary, folder)
    except OSError as error:
        raise describe_os_error(error, folder) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _taken(folder: Path) -> bool:
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()))


def _check_sae_alone(folder: Path) -> None:
    """Refuse to delete anything but one SAE: a file, a folder without its two files, or with another SAE inside."""
    if folder.is_file():
        raise WorkbenchError(f"{folder} is a file", "a folder for the SAE", "choose another with --out")
    remedy = "choose another with --name or --out, or delete it yourself"
    if not all((folder / name).is_file() for name in SAE_FILES):
        named = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
        raise WorkbenchError(f"{folder} holds other things than an SAE ({named})", "an SAE, or an empty folder", remedy)
    inside = next((path.parent for path in folder.glob("*/**/cfg.json")), None)
    if inside is not None:
        raise WorkbenchError(f"{folder} holds another SAE, in {inside.relative_to(folder)}", "one SAE alone", remedy)


def _swap(temporary: Path, folder: Path) -> None:
    """`temporary` takes the place of `folder`, which comes back where that fails and is deleted where it does not."""
    if not folder.exists():
        os.replace(temporary, folder)
        return
    aside = temporary.with_name(temporary.name + ".old")
    os.replace(folder, aside)
    try:
        os.replace(temporary, folder)
    except BaseException:
        os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _placed(
    sae: Foreign, source: str, model: str | None, hook: HookPoint | str | None
) -> tuple[Foreign, list[str], list[str]]:
    """(the SAE with its model and hook, which of them the user said, notes where the two disagree)."""
    chosen = HookPoint.parse(hook) if hook is not None else sae.hook
    if model is None and sae.model is None:
        raise WorkbenchError(
            f"{source} does not say which model its SAE was trained on",
            "a model's name, folder, GGUF file or hub id",
            "say it with --model (Python: model=...)",
        )
    if chosen is None:
        raise WorkbenchError(
            f"{source} does not say where in the model its SAE reads",
            "a hook point, such as blocks.15.hook_resid_post (the output of block 15, counted from 0)",
            "say it with --hook (Python: hook=...)",
        )
    notes = []
    if hook is not None and sae.hook not in (None, chosen):
        notes.append(f"the files say it reads {sae.hook}")
    if model is not None and sae.model not in (None, model):
        notes.append(f"the files say it was trained on {sae.model}")
    said = [name for name, value in (("model", model), ("hook", hook)) if value is not None]
    return dataclasses.replace(sae, model=model or sae.model, hook=chosen), said, notes


def _described(sae: Foreign, notes: list[str]) -> dict[str, Any]:
    """The model's description, as far as this machine knows it; an SAE that cannot fit it is refused."""
    from workbench.models.identity import identify

    assert sae.model is not None and sae.hook is not None
    known: dict[str, Any]
    try:
        known = identify(sae.model)
    except WorkbenchError:
        known = {"name": sae.model}
    d_model, n_blocks = known.get("d_model"), known.get("n_blocks")
    width = sae.weights.encoder.shape[0]
    if d_model is not None and d_model != width:
        raise WorkbenchError(
            f"the SAE reads d_model={width}, {known['name']} has {d_model}",
            f"an SAE of {known['name']}",
            "name the model that it was trained on (--model)",
        )
    if n_blocks is not None and sae.hook.block >= n_blocks:
        raise WorkbenchError(
            f"{sae.hook} does not exist in {known['name']}, which has {n_blocks} blocks",
            f"a block from 0 to {n_blocks - 1}",
            "correct --hook (blocks are counted from 0) or --model",
        )
    if known.get("weights_hash") is None:
        notes.append(f"the weights of {known['name']} are not on this machine: their hash is not recorded")
    return known
