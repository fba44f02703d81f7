"""Parquet tables of somebody else's, read without unpacking more than was asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .errors import WorkbenchError

if TYPE_CHECKING:
    import pyarrow

ROWS = 1024
"""Rows that are unpacked before it is looked how large they are."""


def bounded(file: Any, most: int, path: str | os.PathLike[str]) -> pyarrow.Table:
    """The table, read so that no more than `most` bytes and a small batch are ever in memory. Columns of categories stay small:
    they are read at once, as each batch would bring all categories again."""
    import pyarrow as pa

    schema, batches, unpacked = file.schema_arrow, [], 0
    coded = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    plain = [field for field in schema if not pa.types.is_dictionary(field.type)]
    too_large = WorkbenchError(f"{os.fspath(path)} unpacks to more than {most:,} bytes", "a table of its size", "do not trust it")
    if 8 * len(coded) * file.metadata.num_rows > most:
        raise too_large
    if plain or not coded:
        for batch in file.iter_batches(batch_size=ROWS, columns=[field.name for field in plain] if coded else None):
            batches.append(batch)
            if (unpacked := unpacked + batch.nbytes) > most:
                raise too_large
    table = pa.Table.from_batches(batches, pa.schema(plain) if coded else schema)
    if not coded:
        return table
    categories = file.read(columns=coded)
    columns = [(categories if field.name in coded else table).column(field.name) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)
