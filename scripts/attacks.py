"""Files made to attack the reader that gets them: names that lead elsewhere, code, bombs, and what is no ordinary file.

    python scripts/attacks.py                          # every reader; some twenty minutes on one core
    python scripts/attacks.py --only trait --most 20   # readers whose name holds "trait", at most 20 attacks of a kind

fuzz.py damages at random; here every attack is built into a sound file of the reader's own format, so that it is met:

names     each text of JSON, YAML and TOML, tensor name, archive member and column of texts, in turn, becomes a path to a file or
          a folder that nobody named: one up, through a folder, absolute
code      YAML tags at each value, pickles that call in each archive and array, extension types of Arrow, templates
bombs     files of 6 GiB (sparse), archives and columns that unpack to 6 GiB, shapes to match, sizes that lie
special   in the place of each file: a folder, a pipe, a socket, a device without end, a link to nothing and to itself

Each attack is read in a process of its own with 4 GiB and ten seconds, and five more for each GiB of the file, as hashes are
taken of all of it. inotify watches the folders that the names lead to, so an opening by compiled code counts, too; hooks of the
interpreter (PEP 578) see programs and connections. Prints {reader: {attacks: {kind: n}, refused, read, crashes, slow, executed,
reached, peak_mib, examples}} as JSON: reached counts attacks by which a file outside was opened, changed or told; exit code 1
when anything but refused and read is not zero. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEMORY, SECONDS, LARGE, UNPACKED = 4 << 30, 10, 6 << 30, 6 << 30
FILES, SECRET = "files", "the-words-of-a-file-outside"
SUFFIXES = ("", ".json", ".jsonl", ".yaml", ".npy", ".npz", ".pt", ".safetensors", ".parquet")
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "os.fork", "socket.connect", "pty.spawn")
ENDS = ("read", "refused", "crashes")
Attack = Callable[[Path], None]
"""Makes the file at the path, which was sound, into an attack."""


# ------------------------------------------------------------------------------------------------------------- names


def names(sound: bytes, outside: Path) -> Iterator[tuple[str, Attack]]:
    """Each text of the file as a path to `outside`/canary."""
    ways = ("../canary", "../canaries", f"{outside}/canary", f"{outside}/canaries", "x/../../canary", f"file://{outside}/canary")
    for spoil in _texts(sound):
        for way in ways:
            yield f"a text is {way}", _whole(spoil, way)


def _whole(spoil: Callable[[str], bytes], text: str) -> Attack:
    return lambda path: _put(path, spoil(text))


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _texts(sound: bytes) -> Iterator[Callable[[str], bytes]]:
    """For each text of the file a function that gives the file with another in its place; a suffix of the old one stays."""
    if sound[:2] == b"\x1f\x8b":
        for spoil in _texts(gzip.decompress(sound)):
            yield lambda text, spoil=spoil: gzip.compress(spoil(text))
    elif sound[:4] == b"PK\x03\x04":
        for number in range(len(_members(sound))):
            yield lambda text, number=number: _zipped([(text if n == number else name, data)
                                                       for n, (name, data) in enumerate(_members(sound))])  # fmt: skip
    elif sound[8:9] == b"{":
        end = 8 + struct.unpack("<Q", sound[:8])[0]
        for spoil in _json_texts(sound[8:end], keys=True):
            yield lambda text, spoil=spoil: _headed(spoil(text), sound[end:])
    elif sound[:4] == b"PAR1":
        yield from _column_texts(sound)
    elif b"\x00" not in sound:
        lines = [_json_texts(line) for line in sound.splitlines()] if _is_lines(sound) else []
        for number, line in enumerate(lines):
            for spoil in line:
                yield lambda text, spoil=spoil, number=number: b"\n".join(
                    spoil(text) if n == number else old for n, old in enumerate(sound.splitlines()))  # fmt: skip
        if not lines:
            yield from _json_texts(sound) or _plain_texts(sound)


def _is_lines(sound: bytes) -> bool:
    lines = sound.splitlines()
    return len(lines) > 1 and all(line[:1] == b"{" and line[-1:] == b"}" for line in lines)


def _json_texts(sound: bytes, keys: bool = False) -> list[Callable[[str], bytes]]:
    """Of a JSON text; with `keys` the names of an object's entries, too. Empty for what is no JSON."""
    try:
        json.loads(sound)
    except ValueError:
        return []

    def walk(value: Any) -> Iterator[tuple[Any, Any]]:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            if keys or isinstance(value[key], str):
                yield value, key
            yield from walk(value[key])

    def spoilt(number: int, text: str) -> bytes:
        document = json.loads(sound)
        holder, key = list(walk(document))[number]
        old = holder[key]
        if isinstance(old, str):
            holder[key] = text + _suffix(old)
        elif isinstance(holder, dict):
            holder[text] = holder.pop(key)
        return json.dumps(document).encode()

    return [lambda text, number=number: spoilt(number, text) for number in range(sum(1 for _ in walk(json.loads(sound))))]


def _column_texts(sound: bytes) -> Iterator[Callable[[str], bytes]]:
    """Of a Parquet table: each column of texts, all of its rows."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(sound))

    def spoilt(number: int, text: str) -> bytes:
        made = io.BytesIO()
        column = pyarrow.array([text] * len(table), type=table.schema[number].type)
        parquet.write_table(table.set_column(number, table.schema[number], column), made)
        return made.getvalue()

    for number, one in enumerate(table.schema):
        if pyarrow.types.is_string(one.type) or pyarrow.types.is_large_string(one.type):
            yield lambda text, number=number: spoilt(number, text)


def _suffix(old: str) -> str:
    return next((suffix for suffix in SUFFIXES[1:] if old.endswith(suffix)), "")


def _plain_texts(sound: bytes) -> list[Callable[[str], bytes]]:
    """Of YAML and TOML: what stands behind a colon, a dash or an equals sign, line by line."""
    found = list(re.finditer(rb"^(?P<head>[ \t]*(?:- )?(?:[\w.\"-]+(?: ?[:=]))? ?)(?P<value>\S[^\n]*)$", sound, re.M))

    def spoilt(one: re.Match[bytes], text: str) -> bytes:
        new = json.dumps(text + _suffix(one["value"].decode().strip("\"' ")))
        return sound[: one.start("value")] + new.encode() + sound[one.end("value") :]

    return [lambda text, one=one: spoilt(one, text) for one in found]


def _members(sound: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def _zipped(members: list[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return made.getvalue()


def _headed(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


# ------------------------------------------------------------------------------------------------------------- code


class _Calls:
    """Pickled as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def calls() -> list[Any]:
    """Objects that run code when they are unpickled, one of them within what torch allows."""
    import subprocess
    from collections import OrderedDict

    runs = "open('executed', 'w').close()"
    plain = [_Calls(os.system, "touch executed"), _Calls(exec, runs), _Calls(eval, runs)]
    plain.append(_Calls(subprocess.Popen, ["touch", "executed"]))
    return [*plain, _Calls(OrderedDict, [("x", plain[0])]), {"weights": plain[1]}]


TAGS = (
    "!!python/object/apply:os.system ['touch executed']", "!!python/object/new:os.system ['touch executed']",
    "!!python/name:os.system", "!!python/module:os", "!!python/object/apply:builtins.exec [\"open('executed','w')\"]",
)  # fmt: skip
TEMPLATES = (
    "{x.__class__.__mro__}", "{0.__init__.__globals__}", "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}", "$(touch executed)", "`touch executed`",
)  # fmt: skip


def code(sound: bytes, outside: Path) -> Iterator[tuple[str, Attack]]:
    """What would run something while it is read."""
    import numpy

    del outside
    if sound[:4] == b"PK\x03\x04":
        for number, (name, _) in enumerate(_members(sound)):
            for call in calls():
                objects = io.BytesIO()
                numpy.save(objects, numpy.array([call], dtype=object), allow_pickle=True)
                for data in (pickle.dumps(call, 2), objects.getvalue()):
                    members = [(one, data if n == number else old) for n, (one, old) in enumerate(_members(sound))]
                    yield f"{name} calls", lambda path, members=members: _put(path, _zipped(members))
    for call in calls():
        objects = io.BytesIO()
        numpy.save(objects, numpy.array([call], dtype=object), allow_pickle=True)
        for data in (pickle.dumps(call, 0), pickle.dumps(call, 2), objects.getvalue(), _old_torch(call)):
            yield "a pickle that calls", lambda path, data=data: _put(path, data)
    if sound[:4] == b"PAR1":
        yield "an extension type of Arrow", lambda path: _put(path, _extension(sound))
    if b"\x00" not in sound[:4096] and sound[8:9] != b"{" and not _json_texts(sound) and not _is_lines(sound):
        for spoil in _plain_texts(sound):
            for tag in TAGS:
                yield tag, lambda path, spoil=spoil, tag=tag: _put(path, spoil("TAG").replace(b'"TAG"', tag.encode()))
    for spoil in _texts(sound):
        for text in TEMPLATES:
            yield text, _whole(spoil, text)


def _old_torch(call: Any) -> bytes:
    """A file of PyTorch before 1.6: several pickles in a row, the first ones harmless."""
    import torch

    made = io.BytesIO()
    torch.save(call, made, _use_new_zipfile_serialization=False)
    return made.getvalue()


def _extension(sound: bytes) -> bytes:
    """A column whose type is a pickle (CVE-2023-47248)."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(sound))
    about = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(calls()[0])}
    fields = [pyarrow.field(one.name, one.type, metadata=about) for one in table.schema]
    made = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_arrays(table.columns, schema=pyarrow.schema(fields)), made)
    return made.getvalue()


# ------------------------------------------------------------------------------------------------------------- bombs


def bombs(sound: bytes, outside: Path) -> Iterator[tuple[str, Attack]]:
    """Small on the disk, large once read."""
    del outside
    yield "6 GiB of nothing behind it", lambda path: os.truncate(path, LARGE)
    if b"\x00" not in sound:
        deep = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 121))
        yield "YAML that doubles", lambda path: _put(path, deep)
        yield "depth", lambda path: _put(path, b'{"a":' * 200_000)
        yield "a long number", lambda path: _put(path, b'{"a": ' + b"9" * 5_000_000 + b"}")
    if sound[:4] == b"PK\x03\x04":
        members = _members(sound)
        largest = sorted(range(len(members)), key=lambda n: -len(members[n][1]))[:2]
        for number in sorted({*largest, *(n for n, (name, _) in enumerate(members) if name.endswith(".pkl"))}):
            name, data = members[number]
            for lies in (False, True):
                yield f"{name} unpacks to 6 GiB{', and says less' * lies}", _zip_bomb(sound, number, _longer(data), lies)
    if sound[:2] == b"\x1f\x8b":
        yield "it unpacks to 6 GiB", _gzip_bomb(gzip.decompress(sound))
    if sound[8:9] == b"{":
        yield "a tensor of 6 GiB", _tensor_bomb(sound)
    if sound[:6] == b"\x93NUMPY":
        yield "an array of 6 GiB", lambda path: (_put(path, _longer(sound)[0]), os.truncate(path, LARGE))[1]
    if sound[:4] == b"PAR1":
        yield "columns of 50 GB", lambda path: _put(path, _column_bomb(sound))


def _longer(data: bytes) -> tuple[bytes, int]:
    """The start of a member, and how many bytes of zeros follow; an array gets a shape to match."""
    if data[:6] != b"\x93NUMPY":
        return data, UNPACKED
    from numpy.lib import format as layout

    stream = io.BytesIO(data)
    layout.read_magic(stream)
    shape, _, dtype = layout.read_array_header_1_0(stream)
    made, rows = io.BytesIO(), UNPACKED // max(1, dtype.itemsize)
    larger = (rows // max(1, shape[-1]), shape[-1]) if len(shape) == 2 else (rows,)
    layout.write_array_header_1_0(made, {"descr": layout.dtype_to_descr(dtype), "fortran_order": False, "shape": larger})
    return made.getvalue(), UNPACKED


def _zip_bomb(sound: bytes, number: int, longer: tuple[bytes, int], lies: bool) -> Attack:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for n, (name, data) in enumerate(_members(sound)):
                with archive.open(name, "w", force_zip64=n == number) as file:
                    file.write(longer[0] if n == number else data)
                    for _ in range(longer[1] >> 24 if n == number else 0):
                        file.write(bytes(1 << 24))
            if lies:
                archive.infolist()[number].file_size = len(longer[0])

    return make


def _gzip_bomb(start: bytes) -> Attack:
    def make(path: Path) -> None:
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(start)
            for _ in range(UNPACKED >> 24):
                file.write(bytes(1 << 24))

    return make


def _tensor_bomb(sound: bytes) -> Attack:
    """Every tensor stays, the last in the file grows along its first dimension."""
    end = 8 + struct.unpack("<Q", sound[:8])[0]
    header = json.loads(sound[8:end])
    tensors = {name: one for name, one in header.items() if name != "__metadata__"}
    last = max(tensors, key=lambda name: tensors[name]["data_offsets"][1])
    entry = tensors[last]
    start, stop = entry["data_offsets"]
    times = LARGE // max(1, stop - start)
    entry["shape"] = [entry["shape"][0] * times, *entry["shape"][1:]] if entry["shape"] else [times]
    entry["data_offsets"] = [start, start + (stop - start) * times]
    made = _headed(json.dumps(header).encode(), sound[end:])

    def make(path: Path) -> None:
        path.write_bytes(made)
        os.truncate(path, len(made) - (stop - start) + (stop - start) * times)

    return make


def _column_bomb(sound: bytes) -> bytes:
    """Each column one text of 1 kB, fifty million times."""
    import pyarrow
    from pyarrow import parquet

    schema, made = parquet.read_schema(io.BytesIO(sound)), io.BytesIO()
    n, words = 50_000_000, pyarrow.array(["x" * 1000])
    index = pyarrow.array(memoryview(bytes(n)), type=pyarrow.int8())
    column = pyarrow.DictionaryArray.from_arrays(index, words)
    parquet.write_table(pyarrow.table({one.name: column for one in schema}), made, store_schema=False, compression="zstd")
    return made.getvalue()


# ------------------------------------------------------------------------------------------------------------- no files


def special(sound: bytes, outside: Path) -> Iterator[tuple[str, Attack]]:
    """What stands in a file's place and is none."""
    del sound

    def instead(make: Attack) -> Attack:
        return lambda path: (path.unlink(), make(path))[1]

    def bound(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name if len(str(path)) > 100 else str(path))

    yield "a folder", instead(Path.mkdir)
    yield "a pipe", instead(os.mkfifo)
    yield "a socket", instead(bound)
    yield "a device without end", instead(lambda path: path.symlink_to("/dev/zero"))
    yield "a link to nothing", instead(lambda path: path.symlink_to(outside / "none"))
    yield "a link to itself", instead(lambda path: path.symlink_to(path))


KINDS = {"names": names, "code": code, "bombs": bombs, "special": special}


# ------------------------------------------------------------------------------------------------------------- reading


def readers() -> dict[str, Any]:
    """Those of tests/hostile, but for the header of a GGUF file, which gets bytes; transcripts are read where they lie."""
    from tests.hostile.readers import READERS, Reader

    chats = READERS["chats and transcripts"]

    def make(folder: Path) -> list[Path]:
        lines, one = chats.make(folder)
        (folder / "alone").mkdir()
        return [lines, one.rename(folder / "alone" / one.name)]

    def read(folder: Path) -> Any:
        from workbench.steering.monitor.chats import read_chats
        from workbench.steering.screen.files import DataFile

        return list(DataFile.open(folder / "chats.jsonl").lines()), list(read_chats(folder / "alone" / "one.json"))

    return {**{name: one for name, one in READERS.items() if name != "GGUF header"}, "chats and transcripts": Reader(make, read)}


class _Watch:
    """Files of folders that are opened, made, changed or deleted, by whichever code (inotify)."""

    OPENED, WATCHED = 0x20, 0x20 | 0x2 | 0x100 | 0x200 | 0x40 | 0x80

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.file = self.libc.inotify_init1(os.O_NONBLOCK)
        self.ours: set[int] = set()

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)

    def add(self, folder: Path, *, ours: bool = False) -> None:
        """Watch a folder; of one that is the reader's own only canaries count."""
        if (watch := self.libc.inotify_add_watch(self.file, os.fsencode(folder), self.WATCHED)) < 0:
            raise OSError(ctypes.get_errno(), "inotify cannot watch")
        if ours:
            self.ours.add(watch)

    def seen(self) -> list[str]:
        """What happened since the last look."""
        found = []
        with_events = b""
        while True:
            try:
                with_events += os.read(self.file, 1 << 16)
            except BlockingIOError:
                break
        at = 0
        while at < len(with_events):
            watch, mask, _, length = struct.unpack_from("iIII", with_events, at)
            name = os.fsdecode(with_events[at + 16 : at + 16 + length].rstrip(b"\x00"))
            if name and name != FILES and (watch not in self.ours or name.startswith("canar")):
                found.append(f"{name} {'opened' if mask & self.OPENED else 'changed'}")
            at += 16 + length
        return found


def attack(name: str, kinds: dict[str, int], most: int, seed: int = 0) -> dict[str, Any]:
    """The counts of one reader; `kinds` {kind: 0} is filled with how many attacks there were."""
    reader, draw = readers()[name], random.Random(f"{name} {seed}")
    found: dict[str, Any] = {"attacks": kinds, **dict.fromkeys(("refused", "read", "crashes", "slow", "executed", "reached"), 0)}
    found |= {"peak_mib": 0, "examples": []}
    with tempfile.TemporaryDirectory(prefix="attacks-") as base:
        place, outside, whole = (Path(base) / one for one in ("place", "outside", "whole"))
        tempfile.tempdir = base
        folder = place / FILES
        folder.mkdir(parents=True)
        files = _made(reader, folder)
        shutil.copytree(folder, whole)
        for one in (place, outside):
            _bait(one, files)
        for kind, build in KINDS.items():
            every = [(file, *one) for file in files for one in build((whole / file).read_bytes(), outside)]
            chosen = every if kind == "special" or kind == "bombs" else draw.sample(every, min(most, len(every)))
            kinds[kind] = len(chosen)
            for file, title, spoil in chosen:
                shutil.rmtree(folder)
                shutil.copytree(whole, folder)
                above = [one for one in (folder / file).parents if one.is_relative_to(folder)]
                if kind == "names":  # the file's own folder may be read whole: nothing but a way through it
                    (above[0] / "x").mkdir(exist_ok=True)
                    for one in above[1:]:
                        _bait(one, files)
                os.chdir(folder)  # a socket's path is short only from here
                spoil(folder / file)
                size = (folder / file).stat().st_size if (folder / file).is_file() else 0
                with _Watch() as watch:
                    for one in (place, outside, *above):
                        watch.add(one, ours=one in above)
                        if (one / "canaries").is_dir():
                            watch.add(one / "canaries")
                    told, peak = _read(reader, folder, SECONDS + 5 * size / 2**30)
                    reached = watch.seen()
                ran = told == "executed" or any(place.rglob("executed"))
                reached += [f"{SECRET} was told"] * (SECRET in told)
                found["executed" if ran else "reached" if reached else told if told in (*ENDS, "slow") else "crashes"] += 1
                found["peak_mib"] = max(found["peak_mib"], round(peak / 1024))
                if (ran or reached or told not in ("read", "refused")) and len(found["examples"]) < 12:
                    found["examples"].append({"kind": kind, "file": file, "attack": title, "told": told, "reached": reached[:3]})
                for one in place.rglob("executed"):
                    one.unlink()
        os.chdir(ROOT)
        tempfile.tempdir = None
    return found


def _bait(folder: Path, files: list[str]) -> None:
    """Files and a folder that no reader has a reason to look at, and an empty folder to go through."""
    folder.mkdir(exist_ok=True)
    for name in ("canaries", "x"):
        (folder / name).mkdir(exist_ok=True)
    for suffix in SUFFIXES:
        (folder / f"canary{suffix}").write_text(SECRET)
    for file in files:
        (folder / "canaries" / Path(file).name).write_text(SECRET)


def _made(reader: Any, folder: Path) -> list[str]:
    """The sound files of a reader, made and read once by a child: this process computes nothing, so that it may fork."""
    listed = folder.parent.parent / "listed.json"
    if (child := os.fork()) == 0:
        from tests.hostile.readers import outcome

        os.chdir(folder)
        files = [file.relative_to(folder).as_posix() for file in reader.make(folder)]
        listed.write_text(json.dumps([files, outcome(reader, folder)]))
        os._exit(0)
    os.waitpid(child, 0)
    files, first = json.loads(listed.read_text())
    if first != "read":
        raise SystemExit(f"the sound file gave {first}")
    return files


def _read(reader: Any, folder: Path, seconds: float) -> tuple[str, int]:
    """(how a child that reads it ended, by how many KiB its memory grew)."""
    listen, say = os.pipe()
    if (child := os.fork()) == 0:
        os.close(listen)
        os.write(say, _child(reader, folder).encode("utf-8", "replace")[:2000])
        os._exit(0)
    os.close(say)
    until, ended = time.monotonic() + seconds, (0, 0, None)
    while not ended[0] and time.monotonic() < until:
        ended = os.wait4(child, os.WNOHANG)
        time.sleep(0.002)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        ended = os.wait4(child, 0)
    with os.fdopen(listen, "rb") as pipe:
        told, _, before = pipe.read().decode("utf-8", "replace").rpartition("\n")
    if not told:
        return ("slow" if time.monotonic() >= until else f"the process ended with {ended[1]}"), 0
    return told, max(0, ended[2].ru_maxrss - int(before)) if ended[2] else 0


def _child(reader: Any, folder: Path) -> str:
    """What reading it comes to, and the memory (KiB) that the process had before."""
    from workbench.base.errors import WorkbenchError

    ran: list[str] = []
    page = resource.getpagesize()
    size, held = (int(word) * page for word in Path("/proc/self/statm").read_text().split()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    sys.addaudithook(lambda event, _: ran.append(event) if event in STARTS else None)
    try:
        reader.read(folder)
        told = "read"
    except WorkbenchError as error:
        whole = f"{error.found}{error.expected}{error.remedy}"
        complete = error.found and error.expected and error.remedy
        told = SECRET if SECRET in whole else "refused" if complete else f"an error without its three parts: {error}"
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
    return f"{'executed' if ran else told}\n{held // 1024}"


def main() -> int:
    sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
    os.environ |= {"OMP_NUM_THREADS": "1", "WORKBENCH_PROGRESS": "0", "TOKENIZERS_PARALLELISM": "false"}
    from kills import _import_everything

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=400, help="names and pieces of code, of each, for a reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a reader, or those whose name holds this text")
    options = parser.parse_args()
    known = list(readers())
    chosen = [options.only] if options.only in known else [name for name in known if options.only in name]
    if not chosen:
        parser.error(f"no reader's name holds {options.only!r}; they are {', '.join(known)}")
    _import_everything()
    found = {}
    for name in chosen:
        found[name] = attack(name, dict.fromkeys(KINDS, 0), options.most, options.seed)
        print(name, {key: value for key, value in found[name].items() if key != "examples"}, file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))
    return int(any(one[bad] for one in found.values() for bad in ("crashes", "slow", "executed", "reached")))


if __name__ == "__main__":
    raise SystemExit(main())
