"""Where segments end: a rule that depends on the log and on the segment's receipt alone.

A segment ends before the first record whose time stamp is past the UTC hour of the segment's first record; with the
record that makes it ``segment_records`` long or ``segment_bytes`` heavy (values as stored, before compression); and
with a marker, a record that a worker writes so that new rules can take effect. Time stamps that go back do not end a
segment: producers whose clocks differ would otherwise cut the log to pieces at every hour.
"""

from typing import Final

from pipeline.contract.decode import Headers
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import RecordBatch

MARKER_HEADER: Final = "xidmet-segment-end"
"""A record with this header holds no event; its value is empty and its header says which rules are wanted next."""

_HOUR_MS: Final = 3_600_000
_NEVER: Final = 1 << 62


def marker_text(headers: Headers) -> str | None:
    """What a marker asks for, rules as text; None for a record that is no marker."""
    for name, value in headers:
        if name == MARKER_HEADER:
            return (value or b"").decode("utf-8", "replace")
    return None


def wanted_rules(batch: RecordBatch) -> set[str]:
    """The texts of all markers in a batch. Markers have no value, so that little has to be looked at."""
    heads = (head for value, head in zip(batch.values, batch.headers, strict=True) if head and not value)
    return {text for head in heads if (text := marker_text(head)) is not None}


def segment_end(batch: RecordBatch, place: int, receipt: Receipt, limit: int | None = None) -> tuple[int, bool]:
    """Find where the segment of ``receipt``, which reaches to before ``place`` of the batch, ends.

    ``limit`` is the start of a later segment that was opened before, if there is one: it ends this one too.

    Returns:
        The place after the segment's last record in this batch (``place`` itself if the segment ended before), and
        whether the segment ends there. Without an end the whole rest of the batch belongs to it.
    """
    rules = receipt.rules
    stop = min(len(batch), place + rules.segment_records - receipt.records)
    full = receipt.records + stop - place == rules.segment_records

    if limit is not None and batch.offsets[stop - 1] >= limit:
        stop = place + next(step for step, offset in enumerate(batch.offsets[place:stop]) if offset >= limit)
        full = True
        if stop == place:
            return place, True

    first = receipt.first_timestamp if receipt.records else batch.timestamps[place]
    hour_end = (first // _HOUR_MS + 1) * _HOUR_MS if first >= 0 else _NEVER
    timestamps = batch.timestamps[place:stop]
    if timestamps and max(timestamps) >= hour_end:
        stop = place + next(step for step, stamp in enumerate(timestamps) if stamp >= hour_end)
        full = True

    room = rules.segment_bytes - receipt.value_bytes
    if stop > place and batch.value_bytes(place, stop) >= room:
        stop = batch.place_of_byte(room, place)
        full = True

    headers = batch.headers[place:stop]
    if any(headers):
        for step, head in enumerate(headers):
            if head and marker_text(head) is not None:
                return place + step + 1, True
    return stop, full
