"""SAEs to and from a hub repository, in SAELens' layout: one folder per SAE, as `SAE.from_pretrained(repo, folder)` reads it.

The address is HF_ENDPOINT's (the hub by default), the token HF_TOKEN's. The token goes into requests and nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import describe_os_error, make_folder, read_json, sha256_file, write_json
from workbench.saes.fetching import is_offline
from workbench.saes.hub_client import api, endpoint, repository, token, told
from workbench.saes.importing import Imported, checked_id, import_sae, put, shelve
from workbench.saes.published import PublishedSae, find_published
from workbench.saes.registry import SaeEntry, user_shelf
from workbench.saes.search import local_files

REQUIRED = ("cfg.json", "sae_weights.safetensors")
OURS = (*REQUIRED, "sparsity.safetensors", "card.json", "README.md")
FOREIGN = ("ae.pt", "config.json", "sae.safetensors", "params.npz", "params.safetensors", "cfg.json",
           "activation_scaler.json", "activation_whitening.safetensors")  # fmt: skip
MAX_CARD_BYTES = 8 << 20


@dataclass(frozen=True)
class Pushed:
    """Where an SAE was put."""

    repo: str
    subfolder: str
    revision: str
    url: str
    files: dict[str, str]


def push_sae(entry: SaeEntry, to: str, *, private: bool = False) -> Pushed:
    """Upload an SAE's folder to `to` (owner/name, or owner/name/subfolder; the hook point by default).

    The repository is created when it is not there. Raises WorkbenchError without a token, for a name that is none, and
    for what the hub answers.
    """
    from workbench.saes.formats import saelens

    repo, subfolder = repository(to)
    subfolder = subfolder or str(entry.hook)
    if token() is None:
        raise WorkbenchError(
            "no hub token is set", f"a token that may write to {repo}, in the environment", "set HF_TOKEN"
        )
    saelens.read(entry.folder)  # nothing is uploaded that could not be read back
    files = {name: entry.folder / name for name in OURS if (entry.folder / name).is_file()}
    with told(repo, "upload to"):
        client = api()
        client.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        commit = client.create_commit(
            repo, _operations(client, repo, subfolder, entry, files), commit_message=f"SAE {entry.id}", repo_type="model"
        )
    hashes = {name: sha256_file(path) for name, path in files.items()}
    return Pushed(repo, subfolder, str(commit.oid), f"{client.endpoint}/{repo}/tree/main/{subfolder}", hashes)


def _operations(client: Any, repo: str, subfolder: str, entry: SaeEntry, files: Mapping[str, Path]) -> list[Any]:
    from huggingface_hub import CommitOperationAdd

    added = [CommitOperationAdd(f"{subfolder}/{name}", path) for name, path in files.items()]
    if "README.md" not in files:
        added.append(CommitOperationAdd(f"{subfolder}/README.md", _readme(entry).encode()))
    if not client.file_exists(repo, "README.md"):
        title = f"---\nlibrary_name: saelens\ntags:\n- sparse-autoencoder\n---\n\n# {repo.split('/')[-1]}\n\n"
        added.append(CommitOperationAdd("README.md", (title + _readme(entry)).encode()))
    return added


def _readme(entry: SaeEntry) -> str:
    origin = entry.card.get("imported") or {}
    lines = [f"A sparse autoencoder with {entry.d_sae:,} features, for {entry.model} at {entry.hook}, in SAELens' layout."]
    if origin:
        lines.append(f"\nConverted from {origin.get('source')} ({origin.get('format')}); `card.json` has the hashes.")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its path there, its size, and the hash that the hub keeps of it."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None

    def check(self, file: Path, repo: str) -> None:
        """Refuse a downloaded file that does not have the size and hash."""
        same = file.stat().st_size == self.size
        if same and self.sha256:
            same = sha256_file(file) == self.sha256
        elif same and self.git_sha1:
            data = file.read_bytes()
            same = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == self.git_sha1
        if not same:
            raise WorkbenchError(
                f"{self.path} of {repo} did not arrive as the hub describes it ({file.stat().st_size:,} bytes)",
                f"{self.size:,} bytes with the hash {(self.sha256 or self.git_sha1 or '')[:16]}",
                "run the command again",
            )


def remote_files(repo: str, subfolder: str) -> tuple[str, list[RemoteFile]]:
    """(the revision, the files of an SAE in `subfolder`); an error that lists the folders with an SAE when there is none."""
    with told(repo, "read"):
        client = api()
        info = client.model_info(repo)
        names = [sibling.rfilename for sibling in info.siblings or []]
        prefix = f"{subfolder}/" if subfolder else ""
        inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        wanted = OURS if set(REQUIRED) <= inside else FOREIGN
        paths = [f"{prefix}{name}" for name in wanted if name in inside]
        above = str(Path(subfolder).parent / "config.json") if "sae.safetensors" in inside else ""
        paths += [above.removeprefix("./")] if above.removeprefix("./") in names else []
        if not any(path.endswith((".safetensors", ".pt", ".npz")) for path in paths):
            raise _no_sae(repo, subfolder, names)
        found = _described(client, repo, paths, str(info.sha))
    return str(info.sha), found


def _described(client: Any, repo: str, paths: list[str], revision: str | None = None) -> list[RemoteFile]:
    return [
        RemoteFile(item.path, item.size, item.lfs.sha256 if item.lfs else None, None if item.lfs else item.blob_id)
        for item in client.get_paths_info(repo, paths, revision=revision)
        if hasattr(item, "size")
    ]


def pull_sae(
    source: str,
    *,
    model: str | None = None,
    hook: str | None = None,
    id: str | None = None,
    out: Path | None = None,
    replace: bool = False,
) -> Imported:
    """Bring the SAE in a hub repository (owner/name/subfolder) to the user's shelf, or to the folder `out`.

    Every file is checked against the size and hash that the hub states, and the weights against their configuration,
    before anything is put in place. Layouts of other libraries are imported; `model` and `hook` are for those.
    """
    repo, subfolder = repository(source)
    if is_offline():
        raise WorkbenchError(f"downloads are off, and {source} is a hub repository", "a network", "unset HF_HUB_OFFLINE")
    revision, files = remote_files(repo, subfolder)
    home = make_folder(out.parent if out is not None else user_shelf())
    temporary = Path(tempfile.mkdtemp(prefix=".pull-", dir=home))
    try:
        root = temporary / repo.split("/")[-1]  # the repository's name may tell model and site
        _download(repo, revision, files, root)
        place = root / subfolder
        origin = {"repo": repo, "subfolder": subfolder, "revision": revision,
                  "files": {file.path: sha256_file(root / file.path) for file in files}}  # fmt: skip
        if not all((place / name).is_file() for name in REQUIRED):
            found = import_sae(place, model=model, hook=hook, id=id, out=out, replace=replace)
            _add_origin(found.folder, origin)
            return Imported(found.id, found.folder, found.format, found.notes, read_json(found.folder / "card.json"))
        return _keep(place, origin, id=id, out=out, replace=replace)
    except OSError as error:
        raise describe_os_error(error, home) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def pull_any(source: str, **options: Any) -> Imported:
    """The SAE of a registry id (release/id) or of a hub repository, on the shelf; options as for `pull_sae`.

    The files of a registry id are checked as well, those in the hub cache too; where the hub cannot be asked, a note says so.
    """
    from workbench.saes.fetching import fetch_published

    entry = find_published(source)
    if entry is None:
        return pull_sae(source, **options)
    notes = _check_published(entry) if entry.readable else []
    sae, origin = fetch_published(entry)
    options = {**options, "id": options.get("id") or entry.id}
    return shelve(dataclasses.replace(sae, notes=(*sae.notes, *notes)), origin, source=entry.id, **options)


def _check_published(entry: PublishedSae) -> list[str]:
    """Bring the files of a registry entry into the hub cache and check them there; notes on what could not be checked.

    Nothing has read them by then: some are pickles.
    """
    from huggingface_hub import hf_hub_download

    unchecked = "the files were not checked against the hub's sizes and hashes"
    if is_offline():
        return [f"{unchecked}: downloads are off"]
    try:
        with told(entry.repo, "read"):
            files = _described(api(), entry.repo, list(entry.files))
            secret = token() or False
            got = [Path(hf_hub_download(entry.repo, file.path, token=secret, endpoint=endpoint())) for file in files]
    except WorkbenchError as error:
        return [f"{unchecked}: {error.found}"]
    for file, path in zip(files, got, strict=True):
        try:
            file.check(path, entry.repo)
        except WorkbenchError as error:
            raise WorkbenchError(error.found, error.expected, f"delete {path.resolve()} and run the command again") from None
    return []


def plan_pull(source: str) -> dict[str, Any]:
    """{"source", "repo", "files": [{"file", "bytes", "cached"}], "bytes"}: what `pull_any` would download."""
    entry = find_published(source)
    if entry is not None:
        files = [{name: file[name] for name in ("file", "bytes", "cached")} for file in local_files(entry)]
        total = 0 if all(file["cached"] for file in files) else None  # the registry does not say how large files are
        return {"source": source, "repo": entry.repo, "files": files, "bytes": total}
    repo, subfolder = repository(source)
    _, remote = remote_files(repo, subfolder)
    files = [{"file": file.path, "bytes": file.size, "cached": False} for file in remote]
    return {"source": source, "repo": repo, "files": files, "bytes": sum(file.size for file in remote)}


def _keep(place: Path, origin: dict[str, Any], *, id: str | None, out: Path | None, replace: bool) -> Imported:
    """A pulled SAELens folder as it is, with its origin in the card."""
    from workbench.saes.formats import saelens

    sae = saelens.load(place)
    id = checked_id(id or f"{sae.model_name.split('/')[-1].lower()}/{sae.hook}")
    folder = out if out is not None else user_shelf() / id

    def write(target: Path) -> None:
        for file in place.iterdir():
            if file.name in OURS:
                shutil.copyfile(file, target / file.name)
        _add_origin(target, origin)

    put(folder, id if out is None else None, replace, write)
    return Imported(id if out is None else str(folder), folder, "saelens", (), read_json(folder / "card.json"))


def _add_origin(folder: Path, origin: dict[str, Any]) -> None:
    path = folder / "card.json"
    card = read_json(path) if path.is_file() else {}
    write_json(path, {**(card if isinstance(card, dict) else {}), "pulled": origin})


def _download(repo: str, revision: str, files: list[RemoteFile], root: Path) -> None:
    from huggingface_hub import hf_hub_download

    with told(repo, "download from"):
        for file in files:
            if file.path.endswith(".json") and file.size > MAX_CARD_BYTES:
                found = f"{file.path} of {repo} holds {file.size:,} bytes"
                raise WorkbenchError(found, "a small JSON file", "check the repository")
            got = hf_hub_download(
                repo, file.path, revision=revision, local_dir=root, token=token() or False, endpoint=endpoint()
            )
            file.check(Path(got), repo)


def _no_sae(repo: str, subfolder: str, names: list[str]) -> WorkbenchError:
    weights = (REQUIRED[1], "ae.pt", "sae.safetensors", "params.npz", "params.safetensors")
    folders = sorted({str(Path(name).parent) for name in names if Path(name).name in weights})
    listed = ", ".join(folders[:8]) + (f" and {len(folders) - 8} more" if len(folders) > 8 else "")
    return WorkbenchError(
        f"{repo}{'/' + subfolder if subfolder else ''} holds no SAE",
        f"one of its folders with an SAE: {listed}" if folders else "a repository with an SAE",
        f"name the folder: {repo}/{folders[0]}" if folders else "check the name",
    )
