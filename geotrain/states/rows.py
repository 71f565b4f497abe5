"""Rows of a table as bytes of one length, and back as one NumPy array. Pure: knows no store."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotrain.errors import ViewError

FORMAT = 1
# Bins of a record: the bytes of its row, and the content that it is of.
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
        """Of a row: a field a column."""
        return np.dtype([(name, of, shape) for name, of, shape in self.columns])

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
                f"a table has format {found}, this version of geotrain reads {FORMAT}", "upgrade geotrain here"
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
    content = sha256(json.dumps([key_type, columns, keys]).encode())
    content.update(rows.view(np.uint8).data)
    return Layout(content=content.hexdigest()[:16], key_type=key_type, columns=tuple(columns), num_rows=len(rows))
