"""Asks the server for many records at once, until it has done it to each. Knows nothing of what the records mean."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from aerospike_helpers.batch.records import BatchRecords, Remove, Write
from aerospike_helpers.operations import operations

from geotrain.view.keyed import CLIENT_ERROR, AerospikeError, Key, Records
from geotrain.view.refusals import refusal
from geotrain.view.retry import RETRYABLE, pauses

RECORDS_PER_BATCH = 1000

Name = TypeVar("Name", bound=Key)


def put_many(view: Records, set_name: str, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes records whole, by key, over what is there, in fewer trips than `put`; one that gets no answer again.

    All of a call are in memory a second time, and one of several MB takes longer than several. Raises ViewError.
    """

    if len(records) == 1:  # a batch of one costs more than a write
        [(key, bins)] = records.items()
        view.put(set_name, key, bins)
        return

    def write(key: str) -> Write:
        return Write(view.key(set_name, key), [operations.write(name, value) for name, value in records[key].items()])

    settle(view, set_name, list(records), write, (0,))


def settle(
    view: Records,
    set_name: str,
    names: Sequence[Name],
    request: Callable[[Name], Remove | Write],
    settled: Collection[int],
) -> dict[Name, int]:
    """Asks the server for each, again for `ride_through_s`, until its answer is one of `settled`. Returns the answers.

    Doing it twice must do no harm. Raises ViewError where one is not settled.
    """
    results: dict[Name, int] = {}
    code = 0
    for pause_s in pauses(view.config.ride_through_s):
        left, code = [name for name in names if name not in results], 0
        for at in range(0, len(left), RECORDS_PER_BATCH):
            batch = left[at : at + RECORDS_PER_BATCH]
            answers = _ask(view, [request(name) for name in batch])
            results |= {name: answer for name, answer in zip(batch, answers, strict=True) if answer in settled}
            code = next((answer for answer in answers if answer not in settled), code)
        if not code:
            return results
        if code not in RETRYABLE:
            break
        time.sleep(pause_s)
    raise refusal(f"writing {len(names) - len(results)} records of {set_name}", code)


def _ask(view: Records, requests: Sequence[Remove | Write]) -> list[int]:
    try:
        view.client.batch_write(BatchRecords(list(requests)))
    except AerospikeError as error:
        return [error.code or CLIENT_ERROR] * len(requests)
    return [request.result for request in requests]
