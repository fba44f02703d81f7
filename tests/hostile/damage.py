"""Files spoilt on purpose: bytes, JSON, YAML, safetensors headers, zip archives and names, each by a seeded draw.

`damaged(data, random)` is the one door: it looks at what the bytes are and takes a change that fits, or changes raw bytes.
`PAYLOADS` are whole files that try to run code when they are read: each would leave a file called `executed`.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random as randomness
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

NUMBERS: tuple[Any, ...] = (0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, -0.0, float("nan"), float("inf"), 10**40)
TEXTS = (
    "", " ", "\x00", "\ufeff", "\u202e", "a" * 5000, "../../../etc/passwd", "/etc/passwd", "C:\\x", "con", "..", ".", "\ud800",
    "{question}", "{x.__class__}", "%s%n", "$(touch executed)", "`touch executed`", "<script>executed</script>", "é\u0301",
)  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], [{}], {"": None}, *NUMBERS, *TEXTS)
CALL = b"cos\nsystem\n(S'touch executed'\ntR."
"""A pickle that runs a command when it is read by pickle.load."""


def damaged(data: bytes, random: randomness.Random) -> bytes:
    """`data` with one to three changes; the same generator state gives the same bytes."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice([*_fitting(data), _bytes_flipped, _cut, _spliced])(data, random)
    return data


def _fitting(data: bytes) -> list[Callable[[bytes, randomness.Random], bytes]]:
    """Changes that keep the outer layout, so that what is inside is met."""
    if data[:4] == b"PK\x03\x04":
        return [_zip_entry] * 6
    if data[:2] == b"\x1f\x8b":
        return [_within_gzip] * 6
    if data[8:9] == b"{" and len(data) > 16:
        return [_safetensors_header] * 6
    if data.lstrip()[:1] in (b"{", b"["):
        return [_json_value] * 6
    if b"\x00" not in data:
        return [_lines] * 4
    return [_number_in_header] * 3


# ------------------------------------------------------------------------------------------------------------- raw bytes


def _bytes_flipped(data: bytes, random: randomness.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(random.choice((1, 2, 8, 64))):
        if spoilt:
            spoilt[random.randrange(len(spoilt))] = random.randrange(256)
    return bytes(spoilt)


def _cut(data: bytes, random: randomness.Random) -> bytes:
    return data[: random.randrange(len(data) + 1)] if random.random() < 0.7 else data[random.randrange(len(data) + 1) :]


def _spliced(data: bytes, random: randomness.Random) -> bytes:
    """A piece again somewhere else, or foreign bytes."""
    at, start = random.randrange(len(data) + 1), random.randrange(len(data) + 1)
    piece = random.choice((data[start : start + random.choice((1, 16, 256))], b"\x00" * 64, b"\xff" * 16, CALL, b"\n", b"\r"))
    return data[:at] + piece + data[at + random.choice((0, len(piece))) :]


def _number_in_header(data: bytes, random: randomness.Random) -> bytes:
    """An integer among the first bytes becomes huge, zero or negative."""
    if len(data) < 16:
        return data
    at, value = random.randrange(min(len(data) - 8, 512)), random.choice((0, 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1))
    return data[:at] + struct.pack("<Q", value) + data[at + 8 :]


# ------------------------------------------------------------------------------------------------------------- layouts


def _json_value(data: bytes, random: randomness.Random) -> bytes:
    """One value of a JSON document, or of one line of JSONL, replaced, removed, nested or renamed."""
    lines = data.split(b"\n")
    number = random.choice([n for n, line in enumerate(lines) if line.strip()] or [0])
    one_document = len(lines) < 3 or not lines[0].rstrip().endswith(b"}")
    try:
        document = json.loads(data if one_document else lines[number])
    except (ValueError, RecursionError):
        return _lines(data, random)
    spoilt = _dumped(_changed(document, random))
    if one_document:
        return spoilt
    lines[number] = spoilt
    return b"\n".join(lines)


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def _changed(document: Any, random: randomness.Random) -> Any:
    """The document with one node changed."""
    places = list(_places(document))
    if not places:
        return random.choice(VALUES)
    holder, key = random.choice(places)
    kind = random.random()
    if kind < 0.15:
        del holder[key]
    elif kind < 0.25 and isinstance(holder, dict):
        holder[random.choice(TEXTS)] = holder.pop(key)
    elif kind < 0.3:
        holder[key] = _nested(random.choice((20, 900)))
    elif kind < 0.4 and isinstance(holder[key], list):
        holder[key] = holder[key] * random.choice((0, 2, 50))
    elif kind < 0.5 and isinstance(holder[key], (int, float)):
        holder[key] = random.choice((-holder[key], holder[key] * 1000, str(holder[key]), holder[key] + 1))
    else:
        holder[key] = random.choice(VALUES)
    return document


def _places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    if depth > 12:
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in list(keys)[:200] for place in ((value, key), *_places(value[key], depth + 1))]


def _nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def _lines(data: bytes, random: randomness.Random) -> bytes:
    """Text files (YAML, TOML, CSV): a line twice, away, cut, indented, or one of another kind."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    foreign = (
        b"x: !!python/object/apply:os.system ['touch executed']", b"- !!python/name:os.system", b"a: &a [*a, *a]", b"? [1]",
        b"key: " + _dumped(random.choice(VALUES)), b"\t- x", b"---", b"...", b"<<: {}", b"x" * 9000, b"[" * 3000, b"[a.b]\nc = 1",
    )  # fmt: skip
    change = random.randrange(6)
    if change == 0:
        lines.insert(at, lines[at])
    elif change == 1:
        del lines[at]
    elif change == 2:
        lines[at] = lines[at][: random.randrange(len(lines[at]) + 1)]
    elif change == 3:
        lines[at] = b"  " * random.randrange(1, 4) + lines[at].lstrip()
    elif change == 4 and b":" in lines[at]:
        lines[at] = lines[at].split(b":")[0] + b": " + _dumped(random.choice(VALUES))
    else:
        lines.insert(at, random.choice(foreign))
    return b"\n".join(lines)


def _safetensors_header(data: bytes, random: randomness.Random) -> bytes:
    """Huge shapes, overlapping or backward offsets, wrong types, NaN and infinite weights, names that are paths."""
    (length,) = struct.unpack("<Q", data[:8])
    try:
        header = json.loads(data[8 : 8 + length])
        names = [name for name in header if name != "__metadata__"]
        name = random.choice(names)
        body, entry = bytearray(data[8 + length :]), header[name]
        change = random.randrange(8)
        if change == 0:
            entry["shape"] = random.choice(([2**40], [2**32, 2**32], [-1], [0], [], [1] * 70, entry["shape"][::-1]))
        elif change == 1:
            entry["data_offsets"] = random.choice(([0, 2**62], [8, 4], [-8, 0], header[random.choice(names)]["data_offsets"]))
        elif change == 2:
            entry["dtype"] = random.choice(("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "X", 7, None))
        elif change == 3:
            start, end = entry["data_offsets"]
            number, n = struct.pack("<f", random.choice((float("nan"), float("inf"), 3e38))), min(end - start, len(body))
            body[start : start + n] = (number * n)[:n]
        elif change == 4:
            header[random.choice(("../../executed", "/executed", "", "x" * 2000, "a.b"))] = header.pop(name)
        elif change == 5:
            header["__metadata__"] = random.choice(({"format": "np"}, {"x": 1}, [], None, {"": "\u202e" * 500}))
        elif change == 6:
            del header[name]
        else:
            return struct.pack("<Q", random.choice((0, 1, length + 8, 2**40, 2**63))) + data[8:]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return _bytes_flipped(data, random)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _zip_entry(data: bytes, random: randomness.Random) -> bytes:
    """A PyTorch or numpy archive: an entry spoilt, away, twice, named like a path elsewhere, or with a pickle that calls."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return _bytes_flipped(data, random)
    if not entries:
        return data
    at, change = random.randrange(len(entries)), random.randrange(6)
    name, content = entries[at]
    if change == 0:
        entries[at] = (name, _bytes_flipped(content, random))
    elif change == 1:
        del entries[at]
    elif change == 2:
        entries.append((random.choice(("../../executed", "/tmp/executed", name, "x/../../executed")), content))
    elif change == 3:
        entries = [(one, CALL if one.endswith(".pkl") else old) for one, old in entries]
    elif change == 4:
        entries[at] = (name, _cut(content, random))
    else:
        entries[at] = (name, _number_in_header(content, random))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that stands twice is meant
        for one, content in entries:
            archive.writestr(one, content)
    return made.getvalue()


def _within_gzip(data: bytes, random: randomness.Random) -> bytes:
    try:
        return gzip.compress(_json_value(gzip.decompress(data), random))
    except Exception:
        return _bytes_flipped(data, random)


# ------------------------------------------------------------------------------------------------------------- attacks


class _Runs:
    """Pickled as a call of os.system."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch executed",)


def payloads() -> Mapping[str, bytes]:
    """{name: file}: what runs code in a careless reader, whatever the file is called."""
    import numpy
    import torch

    made, objects, deep = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"axis": _Runs(), "vectors": _Runs()}, made)
    numpy.save(objects, numpy.array([_Runs()], dtype=object), allow_pickle=True)
    numpy.savez(deep, W_enc=numpy.array([_Runs()], dtype=object))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x00" * (64 << 20))
    return {
        "pickle": pickle.dumps(_Runs()),
        "pickle, protocol 0": CALL,
        "torch": made.getvalue(),
        "npy of objects": objects.getvalue(),
        "npz of objects": deep.getvalue(),
        "zip bomb": bomb.getvalue(),
        "yaml tag": b"!!python/object/apply:os.system ['touch executed']\n",
        "yaml anchors": b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120)),
        "json depth": b"[" * 100_000,
        "gzip bomb": gzip.compress(b"\x00" * (64 << 20)),
        "long number": b"[" + b"9" * 100_000 + b"]",
    }
