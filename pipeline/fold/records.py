"""What the fold reads: a run of records of one partition."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pipeline.contract.decode import Headers


@dataclass(frozen=True, slots=True, order=True)
class LogPartition:
    """A partition of a topic. ``topic_id`` keeps a topic that was deleted and made again apart from the first."""

    topic: str
    topic_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """All records of a partition whose offset is in [``start_offset``, ``next_offset``), as columns of one length.

    Offsets in that range that are missing hold no record and never will: transaction markers, aborted transactions,
    compacted records. ``high_water_mark`` is the offset that the next record written to the partition would get, as
    told with the fetch. ``timestamps`` are Unix milliseconds, -1 where the record has none. ``truncated`` says that
    the offsets before ``next_offset`` were deleted by retention before they were read; such a batch holds no records.
    """

    topic: str
    partition: int
    start_offset: int
    next_offset: int
    high_water_mark: int
    offsets: Sequence[int]
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]
    truncated: bool = False
    _ends: list[int] | None = field(default=None, init=False, repr=False, compare=False)
    """Running sum of the bytes of the values, from before the first to behind the last; made when first asked for."""

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, start: int, stop: int, start_offset: int, next_offset: int) -> "RecordBatch":
        """The records from place ``start`` to before place ``stop``, covering [``start_offset``, ``next_offset``)."""
        if start == 0 and stop == len(self.offsets):
            return self
        part = RecordBatch(
            self.topic,
            self.partition,
            start_offset,
            next_offset,
            self.high_water_mark,
            self.offsets[start:stop],
            self.timestamps[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.headers[start:stop],
        )
        if self._ends is not None:
            object.__setattr__(part, "_ends", self._ends[start : stop + 1])
        return part

    def release(self) -> None:
        """Let go of the records; called when nothing needs the batch any more, by whoever made it or was given it.

        Faust's events refer to each other in a ring, so that what they carry would stay until the garbage collector
        comes by: hundreds of megabytes, when a worker is busy.
        """
        for column in (self.offsets, self.timestamps, self.keys, self.values, self.headers, self._ends):
            if isinstance(column, list):
                column.clear()

    def value_bytes(self, start: int, stop: int) -> int:
        """Bytes of the values from place ``start`` to before place ``stop``."""
        ends = self._value_ends()
        return ends[stop] - ends[start]

    def place_of_byte(self, limit: int, start: int = 0) -> int:
        """The place behind the record that takes the values from place ``start`` on to ``limit`` bytes.

        At least ``start + 1``; more than the batch has records if its values are lighter.
        """
        ends = self._value_ends()
        return bisect_left(ends, ends[start] + limit, start + 1)

    @property
    def size(self) -> int:
        """Bytes that may have to be kept for the dead letters: values, keys and headers."""
        size = self.value_bytes(0, len(self)) + sum(map(len, filter(None, self.keys)))
        if any(self.headers):
            size += sum(len(name) + len(content or b"") for head in self.headers for name, content in head)
        return size

    def pieces(self, limit: int) -> Iterator["RecordBatch"]:
        """The batch, cut behind each record that takes the values since the last cut to ``limit`` bytes."""
        records = len(self)
        if records <= 1 or self.value_bytes(0, records) <= limit:
            yield self
            return
        start, start_offset = 0, self.start_offset
        while start < records:
            stop = self.place_of_byte(limit, start)
            if stop >= records:
                stop, next_offset = records, self.next_offset
            else:
                next_offset = self.offsets[stop]
            yield self.part(start, stop, start_offset, next_offset)
            start, start_offset = stop, next_offset

    def _value_ends(self) -> list[int]:
        ends = self._ends
        if ends is None:
            try:
                ends = list(accumulate(map(len, self.values), initial=0))  # type: ignore[arg-type] # None is rare
            except TypeError:
                ends = list(accumulate((len(value or b"") for value in self.values), initial=0))
            object.__setattr__(self, "_ends", ends)
        return ends
