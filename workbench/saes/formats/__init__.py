"""Foreign files of SAEs: one module per on-disk layout, each with `claims(folder)` and `read(folder, file)`.

A new layout is one module and one line in FORMATS.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.untrusted import refuses_damage
from workbench.saes.formats import dictionary_learning, gemma_scope, saelens, sparsify
from workbench.saes.formats.files import Foreign

FORMATS: dict[str, ModuleType] = {
    "saelens": saelens,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
    "gemma_scope": gemma_scope,
}
AUTO = "auto"
_FILES = {".pt": "dictionary_learning", ".npz": "gemma_scope"}


@refuses_damage
def read_foreign(path: Path, format: str = AUTO) -> tuple[str, Foreign]:
    """(the format's name, the SAE) in a folder, or in one weights file; nothing is executed.

    Raises WorkbenchError for a place that cannot be told apart, and for files that are damaged, incomplete, not finite,
    in need of code, or of a kind that is not read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise WorkbenchError(f"there is no {path}", "a folder with an SAE, or its weights file", "check the path")
    if format != AUTO and format not in FORMATS:
        raise unknown_name("format", format, [AUTO, *FORMATS])
    folder, file = (path, None) if path.is_dir() else (path.parent, path)
    name = _recognised(folder, file) if format == AUTO else format
    if file is None and not FORMATS[name].claims(folder):
        raise WorkbenchError(f"{path} holds no files of {name}", f"a folder as {name} writes it", "try --format auto")
    return name, FORMATS[name].read(folder, file)


def _recognised(folder: Path, file: Path | None) -> str:
    if file is not None and file.suffix in _FILES:
        return _FILES[file.suffix]
    found = [name for name, one in FORMATS.items() if one.claims(folder)]
    if file is not None:  # a safetensors file is told by its name
        found = [name for name in found if file.name in (FORMATS[name].WEIGHTS if name != "gemma_scope" else gemma_scope.SECOND)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise WorkbenchError(
        f"{file or folder} holds {'files of ' + ' and '.join(found) if found else 'no SAE that is known'} ({listed})",
        "sae_weights.safetensors, ae.pt, sae.safetensors, params.npz or params.safetensors, with their JSON files",
        "say which with --format, or check the path",
    )
