"""Mutated messages through decoder, fold, dead letters and columns: nothing raises, every event is accounted for.

``--fuzz-seed`` and ``--fuzz-messages`` choose others; a failure prints the seed and the message.
"""

import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.catalogue import demonstration_catalogue
from pipeline.contract.decode import decode
from pipeline.contract.reasons import Reason
from pipeline.fold.flush import Flush
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.rules import Rules
from pipeline.settings import FoldSettings
from sinks.clickhouse.client import Column
from sinks.clickhouse.writer import _LEDGER_TYPES, _ledger_columns, _minute_columns, _receipt_columns
from sinks.dead_letters import _letter
from sinks.prometheus import Metrics
from tests.support.fuzzing import MARKER, NOW_MS, Fuzzer, Message

LOG = LogPartition("usage.events", "id", 0)
CATALOGUE = demonstration_catalogue()
RULES = Rules.of(FoldSettings(segment_records=700), CATALOGUE.version)
CHUNK = 500
SHARDS = 4


@pytest.mark.parametrize("shard", range(SHARDS))
def test_mutated_messages_are_counted_or_refused(shard: int, fuzz_seed: int, fuzz_messages: int) -> None:
    fuzzer = Fuzzer(fuzz_seed)
    worker = Folding()
    outcomes: Counter[str] = Counter()
    for number in range(shard, fuzz_messages // CHUNK, SHARDS):
        messages = fuzzer.chunk(number, CHUNK)
        try:
            outcomes += worker.fold(messages)
        except Exception as error:
            pytest.fail(f"seed {fuzz_seed}, chunk {number}: {error!r}\n{culprit(messages)}")
    # A fuzzer whose messages all end alike tests nothing.
    assert set(outcomes) == {*Reason, "accepted", "duplicate"}
    assert min(outcomes["accepted"], outcomes[Reason.INVALID_DATA], outcomes[Reason.NOT_JSON]) > fuzz_messages / 100


def culprit(messages: Sequence[Message]) -> str:
    """The first message that fails alone, as it can be added to :data:`REGRESSIONS`."""
    for place, message in enumerate(messages):
        try:
            Folding().fold([message])
        except Exception as error:
            return f"message {place}: {error!r}\n{message}"
    return "no message fails alone"


class Folding:
    """A fold and everything behind it, short of the servers."""

    def __init__(self) -> None:
        self._fold = PartitionFold(LOG, 0, {}, RULES, {CATALOGUE.version: CATALOGUE}, Memory((), RULES.memory_segments))
        self._metrics = Metrics(CATALOGUE.by_code)

    def fold(self, messages: Sequence[Message]) -> Counter[str]:
        """Fold messages as one batch; how many events came to what.

        Raises:
            AssertionError: an event is missing, or something cannot be written.
        """
        start = self._fold.next_offset
        stop = start + len(messages)
        values = [message.value for message in messages]
        headers: list[Any] = [message.headers for message in messages]
        counts = events_of(values, headers)
        for place, (message, count) in enumerate(zip(messages, counts, strict=True)):
            if message.events is None:
                assert count >= 1, f"message {place} holds nothing: {message}"
            else:
                assert count == message.events, f"message {place} holds {message.events}, not {count}: {message}"
        self._fold.add(
            RecordBatch(
                *(LOG.topic, LOG.partition, start, stop, stop, range(start, stop)),
                *([message.timestamp for message in messages], [message.key for message in messages], values, headers),
            )
        )
        flush = self._fold.take()
        assert flush.events == sum(counts)
        assert flush.events == len(flush.ledger) + len(flush.rejects) + flush.duplicates
        check_writable(flush)
        self._metrics.flush_written(flush, 0.1, NOW_MS / 1000)
        outcomes = Counter(reject.reason.value for reject in flush.rejects)
        return outcomes + Counter(accepted=len(flush.ledger), duplicate=flush.duplicates)


def events_of(values: Sequence[bytes | None], headers: Sequence[Any]) -> list[int]:
    """Number of events and refusals by message; none in a marker."""
    decoded = decode(values, headers)
    counts = Counter(decoded.records)
    counts.update(refusal.record for refusal in decoded.refusals)
    markers = [any(name == MARKER for name, _ in head) for head in headers]
    return [0 if marker else counts[place] for place, marker in enumerate(markers)]


def check_writable(flush: Flush) -> None:
    """Every letter is one that a Kafka client sends, every value one that its column takes."""
    for reject in flush.rejects:
        letter = _letter(reject)
        assert len(letter.value) == len(reject.value)
        assert all(isinstance(name, str) and isinstance(content, bytes) for name, content in letter.headers)
        assert all(name.encode() is not None for name, _ in letter.headers)
        assert 0 < len(reject.detail) <= 400
    for columns in (
        _ledger_columns(flush.ledger, tuple(_LEDGER_TYPES)),
        _minute_columns(flush.minute_parts),
        _receipt_columns(flush.openings + flush.receipts),
    ):
        for column in columns:
            check_column(column)


def check_column(column: Column) -> None:
    kind, values = column.type, column.values
    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if kind == "String":
        "".join(values).encode("utf-8")
    elif found := re.fullmatch(r"(U?)Int(\d+)", kind):
        low, high = (0, 1 << int(found[2])) if found[1] else (-1 << int(found[2]) - 1, 1 << int(found[2]) - 1)
        assert all(type(value) is int and low <= value < high for value in values), column.name
    elif kind == "Map(Int16, UInt64)":
        assert all(-(1 << 15) <= key < 1 << 15 and 0 <= n < 1 << 64 for value in values for key, n in value.items())
    elif kind == "Map(String, UInt64)":
        assert all(0 <= n < 1 << 64 for value in values for n in value.values())
    elif kind == "Array(UInt64)":
        assert all(0 <= one < 1 << 64 for value in values for one in value)
    else:
        assert kind == "Bool"
        assert set(map(type, values)) <= {bool}


# Found by fuzzing or by hand: what once raised, hung or was miscounted. Paste a failing message here.
REGRESSIONS: list[Message] = [
    Message(b"[1]", (("content-type", None),), events=1),
    Message(b"{}", (("traceparent", None),), events=1),
]


@pytest.mark.parametrize("message", REGRESSIONS, ids=lambda message: str(message)[:60])
def test_what_once_failed(message: Message) -> None:
    Folding().fold([message])


def hostile(size: int) -> Iterator[tuple[str, bytes]]:
    """Messages of about ``size`` bytes that cost as much as they can."""
    yield "brackets", b"[" * size
    yield "brackets in an array", b"[" + b"[" * (size // 2) + b"]" * (size // 2) + b"]"
    yield "objects", b'{"a":' * (size // 5)
    yield "escapes", b'{"a":"' + b"\\u0000" * (size // 6) + b'"}'
    yield "open string of escaped quotation marks", b'"' + b'\\"' * (size // 2) + b"\\"
    yield "quotation marks", b'"' * size
    yield "one string", b'{"id":"' + b"x" * size + b'"}'
    yield "one number", b'{"id":' + b"9" * size + b"}"
    yield "spaces behind a string", b'"user"' + b" " * size
    yield "numbers", b"[" + b"1," * (size // 2) + b"1]"
    yield "nothing", b"[" + b"," * size + b"]"
    yield "broken numbers", b"[" + b"1," * (size // 2) + b"x]"
    yield "empty objects", b"[" + b"{}," * (size // 3) + b"{}]"
    yield "at signs", b"a@" * (size // 2)
    yield "addresses", b'["' + b"a@b.cc " * (size // 7) + b'",x]'
    yield "users", b'"user":"' * (size // 8)
    yield "paths", b'{"specversion":"1.0","type":"xidmet.service.used.v1","id":"' + b" - at `" * (size // 7) + b'"}'
    yield "spaces", b" " * size
    yield "backslashes", b"\\" * size


NAMES = [name for name, _ in hostile(10)]
# As many events as half their bytes: 100,000 of them are enough.
DENSE = ("numbers", "broken numbers", "nothing", "empty objects")


@pytest.mark.parametrize("name", NAMES)
def test_a_megabyte_of_anything_takes_linear_time(name: str) -> None:
    """What takes quadratic time does not end before the time-out, by orders of magnitude."""
    size = 200_000 if name in DENSE else 1_000_000
    assert Folding().fold([Message(dict(hostile(size))[name])]).total() >= 1


BYTES_A_BYTE = 500
CONSTANT_BYTES = 4 << 20


@pytest.mark.parametrize("name", [*NAMES, "10 MB string"])
def test_memory_is_bounded_by_the_size_of_the_message(name: str) -> None:
    """At most 500 bytes a byte: an array of numbers is two bytes an event, and every event gets its refusal."""
    value = b'{"id":"' + b"x" * 10_000_000 + b'"}' if name == "10 MB string" else dict(hostile(30_000))[name]
    worker = Folding()
    tracemalloc.start()
    try:
        worker.fold([Message(value)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= BYTES_A_BYTE * len(value) + CONSTANT_BYTES
    if name == "10 MB string":
        assert peak <= 10 * len(value)
