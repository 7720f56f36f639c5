"""What a fetch gave of a partition, read into columns instead of an object for each record.

aiokafka makes a dataclass of eleven fields of every record, which costs several times what its parser does. Here the
parser is read straight into lists. Which records come, in which order, how far the position moves and what is raised is
the same as with aiokafka's own classes, which tests/unit/test_fetch.py compares: control batches and aborted
transactions are passed over, so are records before the fetch offset, and a batch whose checksum is wrong is an error.

A consumer asks for columns with :func:`fetch_columns`; other consumers of the process get what they always got.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import aiokafka
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException

from pipeline.contract.decode import Headers
from streams.forgiving import checksum_is_right, parsed_again, read_forgivingly

_COLUMNS: Final = object()
"""In the place of a consumer's deserializer of values: nothing is made of single records."""

_NO_HEADERS: Final = ()
_NO_TIMESTAMP: Final = -1


def fetch_columns(consumer: aiokafka.AIOKafkaConsumer) -> None:
    """Let ``getmany`` of a consumer that was not started yet give :class:`FetchedColumns` for each partition."""
    read_forgivingly()
    fetcher.PartitionRecords = _partition_records
    fetcher.FetchResult = ColumnResult
    consumer._value_deserializer = _COLUMNS


@dataclass(slots=True)
class FetchedColumns:
    """Records of a partition, as columns of one length; the columns are what they are in a ``RecordBatch``."""

    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)


class ColumnRecords(PartitionRecords):  # type: ignore[misc] # aiokafka is not typed for mypy
    """The records of a fetch that are still to be handed on, in place of aiokafka's ``PartitionRecords``.

    ``next_fetch_offset`` is where the consumer goes on: behind the last record taken, or behind the last batch that was
    read to its end, whatever it held.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.next_fetch_offset: int = arguments[3]
        self._batches = self._readable_batches()
        # Of the batch in hand: its bytes if it can have headers, and the records not looked at yet.
        self._part: memoryview | None = None
        self._rows: Iterator[Any] | None = None
        self.exhausted = False

    def __next__(self) -> Any:
        raise TypeError("this consumer gives columns; call getmany")

    def take(self, limit: int | None = None) -> FetchedColumns:
        """The next records, ``limit`` at most; ``exhausted`` tells whether it is known that none follow.

        Raises:
            CorruptRecordException: a checksum is wrong, or a batch does not parse. Nothing more comes then; what was
                not handed on is to be fetched again, as with aiokafka.
        """
        try:
            return self._take(sys.maxsize if limit is None else limit)
        except BaseException:
            self._rows, self._batches = None, iter(())
            raise

    def _take(self, limit: int) -> FetchedColumns:
        columns = FetchedColumns()
        offsets = columns.offsets
        add_offset, add_timestamp = offsets.append, columns.timestamps.append
        add_key, add_value, add_headers = columns.keys.append, columns.values.append, columns.headers.append
        while (rows := self._rows or self._next_rows()) is not None:
            before = len(offsets)
            room = limit - before
            following = self.next_fetch_offset
            passed_over = 0
            unreadable = None
            try:
                for record in islice(rows, room):
                    offset = record.offset
                    if offset < following:
                        passed_over += 1
                        continue
                    following = offset + 1
                    add_offset(offset)
                    add_timestamp(record.timestamp)
                    add_key(record.key)
                    add_value(record.value)
                    headers = record.headers
                    add_headers(tuple(headers) if headers else _NO_HEADERS)
            except UnicodeDecodeError:
                unreadable = self._part
            self.next_fetch_offset = following
            if unreadable is not None:
                # Those that were looked at come again, and are passed over by their offsets.
                self._rows = parsed_again(unreadable)
            elif len(offsets) - before + passed_over < room:
                self._rows = None
            if self._part is None:
                _mark_missing(columns.timestamps, before)
            if len(offsets) == limit:
                return columns
        self.exhausted = True
        return columns

    def _next_rows(self) -> Iterator[Any] | None:
        """Begin with the next batch."""
        batch = next(self._batches, None)
        # The parser must not be asked again at its end, which islice remembers.
        self._rows = None if batch is None else islice(batch, None)
        return self._rows

    def _readable_batches(self) -> Iterator[Any]:
        """The batches whose records are for readers; the position moves on behind each when it was read."""
        records, check, committed = self._records, self._check_crcs, self._isolation_level == READ_COMMITTED
        while records.has_next():
            batch, part = records.next_part()
            if check and not (batch.validate_crc() if part is None else checksum_is_right(batch, part)):
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            aborted = committed and batch.producer_id is not None and self._is_aborted(batch)
            if not (aborted or batch.is_control_batch):
                self._part = part
                yield batch
            self.next_fetch_offset = batch.next_offset

    def _is_aborted(self, batch: Any) -> bool:
        """Keep account of which producers' transactions are aborted at this place of the log."""
        self._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and self._contains_abort_marker(batch):
            # A marker may end a transaction that left nothing in this partition.
            self._aborted_producers.discard(batch.producer_id)
        return batch.is_transactional and batch.producer_id in self._aborted_producers


class ColumnResult(FetchResult):  # type: ignore[misc]
    """A fetch as the fetcher keeps it until it is polled."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> Any:
        """The next records: columns for a consumer that wants them, else aiokafka's list."""
        records = self._partition_records
        if not isinstance(records, ColumnRecords):
            return super().getall(max_records)
        if not self.check_assignment(self._topic_partition):
            return FetchedColumns()
        columns = records.take(max_records)
        self._update_position()
        if records.exhausted:
            self._partition_records = None
        return columns


def _mark_missing(timestamps: list[int], start: int) -> None:
    """Formats 0 and 1 leave out time stamps; aiokafka gives None for them there and -1 in format 2."""
    timestamps[start:] = [_NO_TIMESTAMP if stamp is None else stamp for stamp in timestamps[start:]]


def _partition_records(*arguments: Any) -> Any:
    """What a fetcher makes of a partition's part of an answer; the sixth argument is its consumer's deserializer."""
    return (ColumnRecords if arguments[5] is _COLUMNS else PartitionRecords)(*arguments)
