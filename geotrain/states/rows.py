"""Rows of a table as bytes of one length, each with its checksum, and back as one NumPy array. Pure: knows no store."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

from geotrain.errors import ViewError

FORMAT = 2
# Behind a row's bytes: their XXH3.
CHECK_BYTES = 8
# Bins of a record: the bytes of its row and their checksum, and the content that it is of.
ROW, CONTENT = "row", "content"
# Where a manifest's metadata has the layout.
TABLE = "table"
MAX_NAME_CHARS = 50  # what the server takes as the name of a set


def set_of(name: str) -> str:
    """The set that holds the rows of all versions of a table."""
    return f"gt_table_{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the rows of one version of a table lie in the view.

    content: a hash of all rows and keys, by which the records of this version are named. key_type: int64 or string.
    columns: name, NumPy type and shape of each value, in the order of a row's bytes.
    """

    content: str
    key_type: str
    columns: tuple[tuple[str, str, tuple[int, ...]], ...]
    num_rows: int

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Of a row as it is stored: a field a column; the checksum is none."""
        columns = [(name, np.dtype((of, shape))) for name, of, shape in self.columns]
        ends = list(accumulate(of.itemsize for _, of in columns))
        return np.dtype(
            {
                "names": [name for name, _ in columns],
                "formats": [of for _, of in columns],
                "offsets": [0, *ends[:-1]],
                "itemsize": ends[-1] + CHECK_BYTES,
            }
        )

    def takes(self, keys: Collection[object]) -> bool:
        """Whether keys are of the table's type. A table without rows has none."""
        kind = str if self.key_type == "string" else (int, np.integer)
        return not self.num_rows or all(issubclass(of, kind) for of in {type(key) for key in keys})

    @property
    def prefix(self) -> str:
        """What the key of a row's record has before the row's own."""
        return f"{self.content}/"

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        fields: Mapping[str, Any] = json.loads(text)
        if (found := fields["format"]) != FORMAT:
            raise ViewError(
                f"a table has format {found}, this version of geotrain reads {FORMAT}",
                "upgrade geotrain here" if found > FORMAT else "publish the table again",
            )
        return cls(
            content=fields["content"],
            key_type=fields["key_type"],
            columns=tuple((name, of, tuple(shape)) for name, of, shape in fields["columns"]),
            num_rows=fields["num_rows"],
        )


def layout_of(keys: list[str] | list[int], rows: NDArray[np.void]) -> Layout:
    """The layout of rows, a field a column, and their keys."""
    assert rows.dtype.fields is not None
    columns = []
    for name in rows.dtype.names or ():
        of = rows.dtype.fields[name][0]
        columns.append((name, of.base.str, of.shape))
    key_type = "string" if keys and isinstance(keys[0], str) else "int64"
    content = sha256(json.dumps([FORMAT, key_type, columns, keys]).encode())
    content.update(rows.view(np.uint8).data)
    return Layout(content=content.hexdigest()[:16], key_type=key_type, columns=tuple(columns), num_rows=len(rows))


def sealed(rows: NDArray[np.void]) -> NDArray[np.uint8]:
    """Rows as they are stored: (n, bytes of a row and of its checksum)."""
    stored = np.empty((len(rows), rows.itemsize + CHECK_BYTES), np.uint8)
    stored[:, :-CHECK_BYTES] = rows.view(np.uint8).reshape(len(rows), rows.itemsize)
    checks = b"".join([xxh3_64_digest(row) for row in stored[:, :-CHECK_BYTES]])
    stored[:, -CHECK_BYTES:] = np.frombuffer(checks, np.uint8).reshape(len(rows), CHECK_BYTES)
    return stored


def damaged(rows: Sequence[bytes | None], num_bytes: int) -> list[int]:
    """The places of stored rows that are not as they were written. None: there is no such row."""
    return [
        at
        for at, row in enumerate(rows)
        if row is not None and (len(row) != num_bytes or xxh3_64_digest(row[:-CHECK_BYTES]) != row[-CHECK_BYTES:])
    ]
