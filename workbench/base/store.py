"""Files written whole or not at all: bytes, JSON, YAML and Parquet, and the hashes that name their contents."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WorkbenchError

if TYPE_CHECKING:
    import pyarrow

PathLike = str | os.PathLike[str]

_LINE = 120
MOST_BYTES, MOST_TEXT = 1 << 30, 64 << 20
"""What a file that is read whole may hold at most, and one in YAML or TOML, whose parsers take many times as much memory."""
MOST_TIMES = 100
"""How many times its own size a Parquet file above MOST_BYTES may unpack to."""

_REASONS = {
    "ENOSPC": "the disk is full",
    "EDQUOT": "the disk quota is used up",
    "EACCES": "permission denied",
    "EPERM": "permission denied",
    "EROFS": "the file system is read-only",
    "ENOTDIR": "a part of the path is a file, not a folder",
    "EISDIR": "it is a folder, not a file",
    "EEXIST": "a file stands where a folder is needed",
    "ENOENT": "no such file or folder",
}


def describe_os_error(error: OSError, path: PathLike, action: str = "write") -> WorkbenchError:
    """The three-part error for an operating system's refusal to `action` ("write", "read", ...) at `path`."""
    number = error.errno or (errno.ENOENT if isinstance(error, FileNotFoundError) else 0)  # pyarrow's have no number
    name = errno.errorcode.get(number, "")
    reason = _REASONS.get(name) or error.strerror or str(error) or type(error).__name__
    found = f"cannot {action} {os.fspath(path)}: {reason}"
    if action == "read":
        return WorkbenchError(found, "a readable file", "check the path and its permissions")
    if name in ("ENOSPC", "EDQUOT"):
        return WorkbenchError(found, "free space on that disk", "free some, or choose another folder with --out")
    return WorkbenchError(found, "a folder that can be written to", "choose another one with --out")


def check_ordinary(path: PathLike, most: int | None = None) -> Path:
    """Refuse what is there and no ordinary file (a pipe would be waited for, a device has no end), or holds over `most` bytes."""
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise describe_os_error(error, path, "read") from error
    if stat.S_ISDIR(status.st_mode):
        raise describe_os_error(IsADirectoryError(errno.EISDIR, ""), path, "read")
    if not stat.S_ISREG(status.st_mode):
        remedy = "write what it gives to a file first"
        raise WorkbenchError(f"{path} is a pipe, a socket or a device", "an ordinary file", remedy)
    if most is not None and status.st_size > most:
        raise WorkbenchError(f"{path} holds {status.st_size:,} bytes", f"at most {most:,} bytes", "check the file, or divide it")
    return path


def no_memory(path: PathLike) -> WorkbenchError:
    """The error for a file that does not fit into the memory."""
    expected = "a file that fits into the free memory"
    return WorkbenchError(f"{os.fspath(path)} needs more memory than there is", expected, "check the file")


def make_folder(path: PathLike) -> Path:
    """The folder at `path`, created with its parents when missing."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise describe_os_error(error, folder, "create the folder") from error
    return folder


@contextlib.contextmanager
def atomic_path(path: PathLike, *, private: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`: renamed over it on success, removed on any failure (Ctrl-C included).

    The bytes reach the disk before the rename, so that a power cut leaves the old file or the new one. A `private` file can
    be read by its owner alone, from its first byte on.
    """
    target = Path(path)
    make_folder(target.parent)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=".part", dir=target.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        _flush(temporary)
        temporary.chmod(0o600 if private else 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise describe_os_error(error, target) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def atomic_write(path: PathLike, data: bytes | str, *, private: bool = False) -> Path:
    """Write `data` (text as UTF-8) to `path` in one step, for its owner alone if `private`; returns the path."""
    payload = data.encode("utf-8") if isinstance(data, str) else data
    with atomic_path(path, private=private) as temporary:
        temporary.write_bytes(payload)
    return Path(path)


def plain(value: Any) -> Any:
    """`value` as JSON types only: dataclasses, tuples, sets, paths, numpy and torch scalars, and NaN -> None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    to_list = getattr(value, "tolist", None)  # numpy and torch, without importing either
    return plain(to_list()) if callable(to_list) else str(value)


def write_json(path: PathLike, obj: Any, *, private: bool = False) -> Path:
    """Write `obj` as UTF-8 JSON, atomically (NaN and infinities become null), laid out to be read and compared by line."""
    return atomic_write(path, _laid_out(plain(obj)) + "\n", private=private)


def _laid_out(value: Any, depth: int = 0) -> str:
    """JSON text: what fits into a line is one, and so is a list of plain values; all else has a line per item."""
    if not value or not isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, dict):
        items, ends = [f"{json.dumps(k, ensure_ascii=False)}: {_laid_out(v, depth + 1)}" for k, v in value.items()], "{}"
    else:
        items, ends = [_laid_out(item, depth + 1) for item in value], "[]"
    is_short = depth + sum(map(len, items)) + 2 * len(items) <= _LINE and not any("\n" in item for item in items)
    if is_short or (ends == "[]" and not any(isinstance(item, (dict, list)) for item in value)):
        return f"{ends[0]}{', '.join(items)}{ends[1]}"
    pad = "\n" + " " * (depth + 1)
    return f"{ends[0]}{pad}{f',{pad}'.join(items)}\n{' ' * depth}{ends[1]}"


def read_bytes(path: PathLike, most: int = MOST_BYTES) -> bytes:
    """The bytes of `path`; a file that is missing, unreadable or larger than `most` is a WorkbenchError."""
    try:
        return check_ordinary(path, most).read_bytes()
    except OSError as error:
        raise describe_os_error(error, path, "read") from error


def read_text(path: PathLike, most: int = MOST_BYTES) -> str:
    """The UTF-8 text of `path`."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WorkbenchError(
            f"{os.fspath(path)} is not UTF-8 text (byte {error.start})", "a text file in UTF-8", "save it as UTF-8"
        ) from error


def read_json(path: PathLike) -> Any:
    """The object in a JSON file; a missing or corrupt file is a WorkbenchError that names the line."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WorkbenchError(
            f"{os.fspath(path)} is not valid JSON ({json_problem(error)})",
            "a complete JSON file",
            "restore it, or delete it and run the command that wrote it again",
        ) from error


def json_problem(error: Exception) -> str:
    """Why `json.loads` gave up: where, or the bound that the text exceeds."""
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number of thousands of digits"


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: PathLike) -> str:
    """The SHA-256 of a file's bytes, read in pieces of 4 MiB."""
    digest = hashlib.sha256()
    try:
        with open(check_ordinary(path), "rb") as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
    except OSError as error:
        raise describe_os_error(error, path, "read") from error
    return digest.hexdigest()


def content_hash(obj: Any) -> str:
    """The SHA-256 of `obj` in canonical JSON (sorted keys, no spaces): equal contents, equal hash."""
    text = json.dumps(plain(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256_bytes(text.encode("utf-8"))


def write_parquet(path: PathLike, table: pyarrow.Table) -> Path:
    """Write a pyarrow table (or a pandas DataFrame) to `path` as Parquet, atomically."""
    import pyarrow as pa
    from pyarrow import parquet

    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    with atomic_path(path) as temporary:
        parquet.write_table(arrow, temporary, compression="zstd")
    return Path(path)


def read_parquet(path: PathLike) -> pyarrow.Table:
    """The pyarrow table in a Parquet file; one that is missing, corrupt or made to unpack without end is a WorkbenchError."""
    import pyarrow as pa
    from pyarrow import parquet

    from .tables import bounded

    most = max(MOST_BYTES, MOST_TIMES * check_ordinary(path).stat().st_size)
    try:
        with parquet.ParquetFile(path) as file:
            return bounded(file, most, path)
    except MemoryError as error:
        raise no_memory(path) from error
    except pa.ArrowInvalid as error:
        raise WorkbenchError(
            f"{os.fspath(path)} is not a readable Parquet file ({str(error).splitlines()[0]})",
            "a complete Parquet file",
            "delete it and run the command that wrote it again",
        ) from error
    except OSError as error:
        raise describe_os_error(error, path, "read") from error


def read_yaml(path: PathLike) -> Any:
    """The object in a YAML file (safe loader only; a repeated key is refused); errors name file and line."""
    return parse_yaml(read_text(path, MOST_TEXT), name=os.fspath(path))


def parse_yaml(text: str, *, name: str = "the YAML text") -> Any:
    """The object that YAML `text` describes; `name` stands for the file in error messages."""
    import yaml

    try:
        return yaml.load(text, Loader=_unique_key_loader())
    except (ValueError, RecursionError) as error:
        found = f"{name} holds what is no value ({str(error) or type(error).__name__})"
        raise WorkbenchError(found, "valid YAML", "correct it") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise WorkbenchError(f"{name}{where}: {problem}", "valid YAML", "correct that line") from error


def _unique_key_loader() -> Any:
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """SafeLoader keeps the last of two equal keys in silence; a hand-edited file deserves better."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            seen: set = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (str, int, float, bool)) and key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the field {key!r} appears twice", key_node.start_mark
                    )
                if isinstance(key, (str, int, float, bool)):
                    seen.add(key)
            return super().construct_mapping(node, deep=deep)

    return UniqueKeyLoader


def write_yaml(path: PathLike, obj: Any, *, literal: bool = False) -> Path:
    """Write `obj` as block-style YAML in the order given, atomically; `literal` keeps the lines of texts that have several."""
    import yaml

    text = yaml.dump(
        plain(obj), Dumper=_exact_dumper(literal), sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )
    return atomic_write(path, text)


def _exact_dumper(literal: bool) -> Any:
    import yaml

    class ExactDumper(yaml.SafeDumper):
        """PyYAML writes rare line separators bare and reads them back as spaces; in double quotes they are escaped."""

    def represent(dumper: Any, text: str) -> Any:
        lines = "|" if literal and "\n" in text else None
        style = '"' if any(mark in text for mark in "\x85\u2028\u2029\ufeff") else lines
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    ExactDumper.add_representer(str, represent)
    return ExactDumper
