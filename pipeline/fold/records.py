"""What the fold reads: a run of records of one partition."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, start: int, stop: int, start_offset: int, next_offset: int) -> "RecordBatch":
        """The records from place ``start`` to before place ``stop``, covering [``start_offset``, ``next_offset``)."""
        if start == 0 and stop == len(self.offsets):
            return self
        return RecordBatch(
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

    @property
    def size(self) -> int:
        """Bytes that may have to be kept for the dead letters: values, keys and headers."""
        size = sum(map(len, filter(None, self.values))) + sum(map(len, filter(None, self.keys)))
        if any(self.headers):
            size += sum(len(name) + len(content or b"") for head in self.headers for name, content in head)
        return size

    def pieces(self, limit: int) -> Iterator["RecordBatch"]:
        """The batch, cut behind each record that takes the values since the last cut to ``limit`` bytes."""
        sizes = [len(value) if value else 0 for value in self.values]
        if sum(sizes) <= limit or len(self) <= 1:
            yield self
            return
        start, start_offset, weight = 0, self.start_offset, 0
        for place, size in enumerate(sizes):
            weight += size
            last = place + 1 == len(self)
            if weight >= limit or last:
                next_offset = self.next_offset if last else self.offsets[place + 1]
                yield self.part(start, place + 1, start_offset, next_offset)
                start, start_offset, weight = place + 1, next_offset, 0
