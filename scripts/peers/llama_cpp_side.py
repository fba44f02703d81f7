"""Runs where xllamacpp is installed: llama.cpp itself loads our control vectors and applies them to a tiny model.

    python llama_cpp_side.py FOLDER    # model.gguf, only.{b}.gguf, tokens.json -> logits.npz {plain, b: [vocab]}

The wheel has no Python call for control vectors, so that its shared library is called through ctypes (x86-64 Linux):
llama.cpp's own loader of control vector files, then `llama_set_adapter_cvec`. The parameter structures are passed on
as opaque memory, larger than they are, which that calling convention allows.
"""

from __future__ import annotations

import ctypes as c
import json
import sys
from pathlib import Path

import numpy as np
import xllamacpp  # pyright: ignore[reportMissingImports]

LOADER = "_Z26common_control_vector_loadRKSt6vectorI31common_control_vector_load_infoSaIS0_EE"


class Opaque(c.Structure):
    """Room for a structure whose layout does not matter here."""

    _fields_ = [("bytes", c.c_ubyte * 2048)]


class Loaded(c.Structure):
    """common_control_vector_data: the width, and a std::vector of floats."""

    _fields_ = [("n_embd", c.c_int), ("begin", c.c_void_p), ("end", c.c_void_p), ("capacity", c.c_void_p)]


def bind(library: c.CDLL) -> None:
    for name in ("llama_model_default_params", "llama_context_default_params", "llama_batch_get_one"):
        getattr(library, name).restype = Opaque
    library.llama_batch_get_one.argtypes = [c.c_void_p, c.c_int32]
    library.llama_model_load_from_file.restype = c.c_void_p
    library.llama_model_load_from_file.argtypes = [c.c_char_p, Opaque]
    library.llama_init_from_model.restype = c.c_void_p
    library.llama_init_from_model.argtypes = [c.c_void_p, Opaque]
    library.llama_decode.argtypes = [c.c_void_p, Opaque]
    library.llama_get_logits.restype = c.POINTER(c.c_float)
    library.llama_get_logits.argtypes = [c.c_void_p]
    library.llama_set_adapter_cvec.argtypes = [
        c.c_void_p,
        c.c_void_p,
        c.c_size_t,
        c.c_int32,
        c.c_int32,
        c.c_int32,
    ]
    getattr(library, LOADER).restype = None
    getattr(library, LOADER).argtypes = [c.c_void_p, c.c_void_p]


def load_directions(library: c.CDLL, file: Path) -> tuple[int, np.ndarray]:
    """(d_model, all directions one after the other) as llama.cpp's common_control_vector_load reads the file."""
    # common_control_vector_load_info is a float and a std::string; in this wheel's C++ ABI (the one of GCC before 5)
    # a string is a pointer to characters that stand behind their length, capacity and reference count.
    name = str(file).encode()
    text = c.create_string_buffer(np.array([len(name), len(name), 1], dtype="<u8").tobytes() + name)
    info = (c.c_uint64 * 2)()
    c.cast(info, c.POINTER(c.c_float))[0] = 1.0
    info[1] = c.addressof(text) + 24
    start = c.addressof(info)
    infos = (c.c_uint64 * 3)(start, start + 16, start + 16)
    loaded = Loaded()
    getattr(library, LOADER)(c.addressof(loaded), c.addressof(infos))
    if loaded.n_embd <= 0:
        raise SystemExit(f"llama.cpp refused {file}")
    count = (loaded.end - loaded.begin) // 4
    return loaded.n_embd, np.ctypeslib.as_array(c.cast(loaded.begin, c.POINTER(c.c_float)), (count,)).copy()


def logits(
    library: c.CDLL, model: int, tokens: list[int], vocab: int, directions: tuple[int, np.ndarray] | None
) -> np.ndarray:
    """The last token's logits [vocab] in a new context, with or without a control vector."""
    context = library.llama_init_from_model(model, library.llama_context_default_params())
    if directions is not None:
        width, data = directions
        failed = library.llama_set_adapter_cvec(context, data.ctypes.data, len(data), width, 1, 1000)
        if failed:
            raise SystemExit("llama.cpp did not take the control vector")
    ids = (c.c_int32 * len(tokens))(*tokens)
    if library.llama_decode(context, library.llama_batch_get_one(c.addressof(ids), len(tokens))):
        raise SystemExit("llama.cpp did not run")
    return np.ctypeslib.as_array(library.llama_get_logits(context), (vocab,)).copy()


def main(folder: Path) -> None:
    place = next(Path(str(xllamacpp.__file__)).parent.glob("xllamacpp*.so"))
    library = c.CDLL(str(place))
    bind(library)
    library.llama_backend_init()
    told = json.loads((folder / "tokens.json").read_text())
    model = library.llama_model_load_from_file(
        str(folder / "model.gguf").encode(), library.llama_model_default_params()
    )
    if not model:
        raise SystemExit("llama.cpp did not load the model")
    found = {"plain": logits(library, model, told["tokens"], told["vocab"], None)}
    for file in sorted(folder.glob("only.*.gguf")):
        directions = load_directions(library, file)
        found[file.name.split(".")[1]] = logits(library, model, told["tokens"], told["vocab"], directions)
    np.savez(folder / "logits.npz", **found)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
