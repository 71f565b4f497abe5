"""The model of one state, and how rows become its inputs. Reads nothing itself."""

from array import array
from collections.abc import Callable, Collection, Sequence
from math import nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geotrain.errors import DataError
from geotrain.program import config_from_json
from geotrain.serving.records import Place, RecordColumns, Row, record_columns
from geotrain.states.lookup import State
from geotrain.tasks.config import TaskConfig
from geotrain.tasks.encode import Encoder
from geotrain.tasks.features import Encoding
from geotrain.tasks.model import build_model
from geotrain.view.keyed import Record

Read = Callable[[Sequence[Place]], Sequence[Record | None]]
Asked = Sequence[tuple[RecordColumns, Place | None]]


class Scorer:
    """Threads may share it.

    columns: what a row must have: keys, times, and the features that the view does not give.
    Raises DataError for a state that names no task, or lacks tensors that its model needs.
    """

    def __init__(self, state: State, *, live: Collection[str], allowed: Sequence[str]) -> None:
        metadata, reference = state.manifest.metadata, state.manifest.reference
        if not {"task", "encoding"} <= metadata.keys():
            raise DataError(
                f"the state {reference} names no task and encoding in its metadata",
                "publish it as a job does, or build its model and inputs yourself",
            )
        task = config_from_json(TaskConfig, metadata["task"])
        try:
            encoding = Encoding.from_json(metadata["encoding"])
            self._encoder = Encoder(task, encoding)
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"the encoding of the state {reference} is none of its task: {error!r}", "publish it as a job does"
            ) from error
        self.state = state
        self._model = model = _with_tensors(build_model(task, encoding, allowed), state)
        # A call of a module looks for hooks of many kinds first: a sixth of what one row takes.
        self._forward = model if model._forward_pre_hooks or model._forward_hooks else model.forward
        self._records = record_columns(task, live)
        given = {column for columns in self._records for column in columns.columns}
        needs = [name for columns in self._records for name in columns.needs]
        self.columns = list(dict.fromkeys([*needs, *(name for name in task.features if name not in given)]))

    def joined(self, rows: Sequence[Row], read: Read) -> Sequence[Row]:
        """Returns the rows with the columns that the view has for them. read: gives the records, all at once."""
        try:
            asked = [self._asked(row) for row in rows]
            places = list(dict.fromkeys([place for of_row in asked for _, place in of_row if place is not None]))
            found = dict(zip(places, read(places), strict=True)) if places else {}
            return [_joined(row, of_row, found) for row, of_row in zip(rows, asked, strict=True)]
        except KeyError as error:
            raise self._lacking(error.args[0]) from None

    def outputs(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Returns the model's outputs (n,) for joined rows."""
        numeric, categorical, place = self._encoder.numeric, self._encoder.categorical, self._encoder.place
        try:
            numbers = array("d", [nan if (value := row[name]) is None else value for row in rows for name in numeric])
            places = array("q", [place(i, row[name]) for row in rows for i, name in enumerate(categorical)])
        except KeyError as error:
            raise self._lacking(error.args[0]) from None
        except (TypeError, OverflowError):
            raise self._unfit(rows) from None
        with torch._C._InferenceMode(True):  # what torch.inference_mode enters, in more steps
            inputs = self._encoder.inputs(
                np.ndarray((len(rows), len(numeric)), np.float64, numbers),
                np.ndarray((len(rows), len(categorical)), np.int64, places),
            )
            outputs: NDArray[np.float32] = self._forward(inputs).numpy()
        return outputs

    def _asked(self, row: Row) -> Asked:
        return [(columns, columns.place(row)) for columns in self._records if not row.keys() >= columns.columns]

    def _lacking(self, name: str) -> DataError:
        return DataError(
            f"a row has no column {name}", f"give it, None where it is unknown; a row needs {', '.join(self.columns)}"
        )

    def _unfit(self, rows: Sequence[Row]) -> DataError:
        """Says which value is not of its column's type."""
        for number, row in enumerate(rows):
            for name in self._encoder.numeric:
                try:
                    array("d", [row[name] or 0])
                except (TypeError, OverflowError):
                    return DataError(f"row {number}: {name} is {row[name]!r}", "give a number, or None")
            for i, name in enumerate(self._encoder.categorical):
                try:
                    self._encoder.place(i, row[name])
                except TypeError as error:
                    return DataError(f"row {number}: {name}: {error}", "give the value as it was in training, or None")
        raise AssertionError("every value is of its column's type")


def _joined(row: Row, asked: Asked, found: dict[Place, Record | None]) -> Row:
    given: dict[str, object] = {}
    for columns, place in asked:
        record = None if place is None else found[place]
        given |= columns.values(None if record is None else record.bins, row)
    return {**given, **row} if given else row


def _with_tensors(model: nn.Module, state: State) -> nn.Module:
    """The model with the state's own tensors, not with copies."""
    needed = model.state_dict()
    lacking = [
        name for name, like in needed.items() if name not in state.tensors or state.tensors[name].shape != like.shape
    ]
    if lacking:
        raise DataError(
            f"the state {state.manifest.reference} lacks tensors that its model needs, or has them in another shape: "
            f"{', '.join(lacking)}",
            "publish a state of this model, under another name where the model has changed",
        )
    with torch.inference_mode():  # what is made here, over the same memory, spares each operation what autograd keeps
        own = {name: torch.from_dlpack(state.tensors[name].to(like.dtype)) for name, like in needed.items()}
        model.load_state_dict(own, assign=True)
    # They stay as they are from here on: found as any attribute is, and not by Module.__getattr__, which takes long.
    for module in model.modules():
        vars(module).update([*module.named_parameters(recurse=False), *module.named_children()])
    return model.eval().requires_grad_(False)
