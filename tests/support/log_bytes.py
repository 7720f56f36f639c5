"""Record batches as bytes on the log, also such as only brokers write: markers, holes, time stamps of the broker."""

import struct
from collections.abc import Sequence

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from crc32c import crc32c

Row = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
"""Offset in the batch, Unix milliseconds, key, value, headers."""

_CHECKSUM, _ATTRIBUTES, _LAST_DELTA, _MAX_TIMESTAMP, _COUNT, _RECORDS = 17, 21, 23, 35, 57, 61
_LOG_APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x08, 0x10, 0x20
ABORT, COMMIT = 0, 1


def batch(
    base: int,
    rows: Sequence[Row],
    *,
    codec: int = 0,
    producer: int = -1,
    transactional: bool = False,
    control: bool = False,
    append_time: int | None = None,
    last_delta: int | None = None,
) -> bytes:
    """A batch in format 2. ``last_delta`` is the last offset that it covers, if that record was compacted away."""
    builder = DefaultRecordBatchBuilder(2, codec, transactional, producer, 0, 0, 1 << 24)
    for row in rows or [(0, 0, None, None, [])]:
        builder.append(*row)
    made = bytearray(builder.build())
    if not rows:
        del made[_RECORDS:]
        made[8:12] = struct.pack(">i", len(made) - 12)
        made[_COUNT : _COUNT + 4] = bytes(4)
        made[_ATTRIBUTES + 1] &= ~0x07
    made[0:8] = struct.pack(">q", base)
    if append_time is not None:
        made[_ATTRIBUTES + 1] |= _LOG_APPEND_TIME
        made[_MAX_TIMESTAMP : _MAX_TIMESTAMP + 8] = struct.pack(">q", append_time)
    if control:
        made[_ATTRIBUTES + 1] |= _CONTROL
    if last_delta is not None:
        made[_LAST_DELTA : _LAST_DELTA + 4] = struct.pack(">i", last_delta)
    return sealed(made)


def marker(base: int, producer: int, kind: int) -> bytes:
    """The end of a transaction."""
    row: Row = (0, 1_000, struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0), [])
    return batch(base, [row], producer=producer, transactional=True, control=True)


def old_batch(base: int, rows: Sequence[Row], *, magic: int, codec: int = 0) -> bytes:
    """Records in format 0 or 1. Compressed ones are one message around all, at the offset of the last."""
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 24)
    for offset, stamp, key, value, _ in rows:
        # Within a compressed message of format 1 offsets begin at 0.
        builder.append(offset if codec and magic else base + offset, stamp, key, value)
    made = bytearray(builder.build())
    if codec:
        made[0:8] = struct.pack(">q", base + rows[-1][0])
    return bytes(made)


def sealed(made: bytearray) -> bytes:
    """A batch in format 2 with the checksum of what it now holds."""
    made[_CHECKSUM : _CHECKSUM + 4] = struct.pack(">I", crc32c(made[_ATTRIBUTES:]))
    return bytes(made)
