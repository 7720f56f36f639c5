"""Records whose header names are not UTF-8, which aiokafka cannot read; and a faster checksum.

Kafka wants text there but does not look; clients on librdkafka send any bytes. aiokafka raises, so that one such
message would stop every worker of the group, for ever. Here such names are read with their odd bytes written as
``\\xff``. Only the batch that holds one is parsed again, by aiokafka's own parser in Python.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from crc32c import crc32c

_FIRST_MAGIC_WITH_HEADERS = 2
_AFTER_CHECKSUM = _DefaultRecordBatchPy.ATTRIBUTES_OFFSET


def read_forgivingly() -> None:
    """Let all consumers of this process read such records."""
    fetcher.MemoryRecords = ForgivingRecords


def checksum_is_right(batch: Any, part: memoryview) -> bool:
    """Whether the checksum of a batch of format 2 is right; aiokafka's own function takes ten times as long."""
    return bool(crc32c(part[_AFTER_CHECKSUM:]) == batch.crc)


def parsed_again(part: memoryview) -> Iterator[Any]:
    """The records of a batch from its first on, slowly, whatever their header names are."""
    batch = _DefaultRecordBatchPy(part)
    batch._maybe_uncompress()
    batch._buffer = _Buffer(batch._buffer)
    return iter(batch)


class ForgivingRecords(_MemoryRecordsPy):  # type: ignore[misc] # aiokafka is not typed for mypy
    """What a fetch gave of a partition, in place of aiokafka's ``MemoryRecords``."""

    def next_batch(self) -> Any:
        """The next batch, or None."""
        batch, part = self.next_part()
        return batch if part is None else _Batch(batch, part)

    def next_part(self) -> tuple[Any, memoryview | None]:
        """The next batch as aiokafka parses it, or None, and its bytes if its records can have headers."""
        part = self._next_slice
        batch = super().next_batch()
        # Batches of the formats before headers do not say which one they have.
        if batch is None or part[self.MAGIC_OFFSET] < _FIRST_MAGIC_WITH_HEADERS:
            return batch, None
        return batch, part


class _Batch:
    """A batch of aiokafka that is parsed again where it cannot go on."""

    def __init__(self, batch: Any, part: memoryview) -> None:
        self._batch = batch
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        done = 0
        try:
            for record in self._batch:
                yield record
                done += 1
        except UnicodeDecodeError:
            yield from islice(parsed_again(self._part), done, None)


class _Buffer(bytearray):
    """Whose slices decode whatever they hold."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _Slice(found) if isinstance(place, slice) else found


class _Slice(bytes):
    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
