"""The fold of one partition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from pipeline.catalogue import Catalogue
from pipeline.contract.agency import agency_of
from pipeline.contract.checks import check
from pipeline.contract.columns import EventColumns, to_columns
from pipeline.contract.decode import Decoded, Refusal, decode, original
from pipeline.contract.profiles import Fault, ProfileTable
from pipeline.fold.flush import Flush, Reject
from pipeline.fold.histogram import bucket_of, whole_milliseconds
from pipeline.fold.ledger import ledger_of
from pipeline.fold.memory import Memory, event_hashes, user_hashes
from pipeline.fold.minutes import SegmentMinutes
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.rules import Rules
from pipeline.fold.segment import marker_text, segment_end

_HASH_MASK = (1 << 64) - 1


class PartitionFold:
    """Folds the records of one partition, in log order, from the start of a segment.

    Args:
        log: the partition.
        start: offset of the segment's start: where the one before ended, or where the log begins.
        opened: the rules of segments from ``start`` on that have a receipt already, by their start. They keep their
            rules, and no other segment reaches beyond the start of one of them.
        rules: what the segment at ``start`` inherits if it was not opened: what the receipt before it says, or the
            worker's own rules where nothing was folded before.
        catalogues: every catalogue that the rules name, by version.
        memory: the events of the segments before.
        known: the rules that a marker may ask for, by their text; a marker that asks for others changes none.
        profiles: a table that is shared with the folds of other partitions, in the same thread.

    A segment without a receipt takes the rules of the one before, or those that the marker between them names. So the
    rules follow from the log alone: workers of different settings that fold it side by side open every segment alike.
    """

    def __init__(
        self,
        log: LogPartition,
        start: int,
        opened: Mapping[int, Rules],
        rules: Rules,
        catalogues: Mapping[int, Catalogue],
        memory: Memory,
        known: Mapping[str, Rules] = MappingProxyType({}),
        profiles: ProfileTable | None = None,
    ) -> None:
        self.log = log
        self.next_offset = start
        self._rules = rules
        self._known = known
        self._catalogues = catalogues
        self._memory = memory
        self._flush = Flush()
        self._profiles = profiles or ProfileTable()
        self._openings = opened
        self._changed = False
        self._begin_segment(start)

    @property
    def pending_events(self) -> int:
        """Events folded but not yet taken."""
        return self._flush.events

    def add(self, batch: RecordBatch) -> None:
        """Fold a batch that starts at ``next_offset``.

        The caller drops what was folded before and fetches again what it missed. A truncated batch ends the segment
        where it stands; the next one starts where the log now begins.
        """
        if batch.start_offset != self.next_offset:
            raise ValueError(f"batch starts at {batch.start_offset}, the fold stands at {self.next_offset}")
        place = 0
        while place < len(batch):
            stop, ends = segment_end(batch, place, self._receipt, self._limit)
            if stop > place:
                self._fold(batch, place, stop)
            if ends:
                wanted = marker_text(batch.headers[stop - 1]) if stop > place else None
                self._end_segment(self._receipt.next_offset, self._known.get(wanted) if wanted else None)
            place = stop
        if batch.truncated:
            self._end_segment(batch.next_offset)
        self.next_offset = batch.next_offset

    def take(self) -> Flush:
        """What is to be written since the last call; false when nothing was folded."""
        self._take_progress()
        flush, self._flush = self._flush, Flush()
        return flush

    def _take_progress(self) -> None:
        if self._changed:
            self._flush.minute_parts.append(self._minutes.take(self._receipt.next_offset))
            self._flush.receipts.append(replace(self._receipt, rejected=dict(self._receipt.rejected)))
            self._changed = False

    def _end_segment(self, next_start: int, next_rules: Rules | None = None) -> None:
        """Close the segment, if it was opened, and prepare one at ``next_start``, which its first record opens."""
        if self._opened:
            self._receipt.closed = True
            self._receipt.next_rules = next_rules
            self._changed = True
            self._take_progress()
        self._rules = next_rules or self._rules
        opened = self._opened
        self._begin_segment(next_start)
        if opened:
            self._memory.end_segment(self._rules.memory_segments)

    def _begin_segment(self, start: int) -> None:
        self._rules = self._openings.get(start, self._rules)
        self._receipt = Receipt(self.log, start, start, self._rules)
        self._minutes = SegmentMinutes(self.log, start, self._rules.dimensions)
        self._opened = start in self._openings
        self._limit = min((known for known in self._openings if known > start), default=None)

    def _open_segment(self) -> None:
        if not self._opened:
            self._flush.openings.append(replace(self._receipt, rejected={}))
            self._opened = True

    def _fold(self, batch: RecordBatch, start: int, stop: int) -> None:
        """Fold the records at places [start, stop) into the current segment."""
        self._open_segment()
        offsets = batch.offsets[start:stop]
        timestamps = batch.timestamps[start:stop]
        values = batch.values[start:stop]
        headers = batch.headers[start:stop]
        receipt = self._receipt
        if not receipt.records:
            receipt.first_timestamp = timestamps[0]
        receipt.records += stop - start
        receipt.value_bytes += batch.value_bytes(start, stop)
        receipt.next_offset = offsets[-1] + 1
        receipt.last_timestamp = timestamps[-1]
        self._changed = True

        if any(headers) and marker_text(headers[-1]) is not None:
            # A marker ends its segment, so it can only be the last record.
            offsets, timestamps, values, headers = offsets[:-1], timestamps[:-1], values[:-1], headers[:-1]
        decoded = decode(values, headers)
        refusals = decoded.refusals + self._accept(decoded, offsets, timestamps, values)
        receipt.events += len(refusals)
        self._flush.events += len(refusals)
        if refusals:
            for reason, count in Counter(refusal.reason for refusal in refusals).items():
                receipt.rejected[reason] = receipt.rejected.get(reason, 0) + count
            catalogue = self._catalogues[receipt.rules.catalogue_version]
            refusals.sort(key=lambda refusal: (refusal.record, refusal.batch_index))
            self._flush.rejects += [
                Reject(
                    log=self.log,
                    offset=offsets[refusal.record],
                    batch_index=refusal.batch_index,
                    timestamp=timestamps[refusal.record],
                    reason=refusal.reason,
                    detail=refusal.detail,
                    key=batch.keys[start + refusal.record],
                    headers=headers[refusal.record],
                    value=refusal.value,
                    agency=agency_of(refusal.value, headers[refusal.record], catalogue),
                )
                for refusal in refusals
            ]

    def _accept(
        self,
        decoded: Decoded,
        offsets: Sequence[int],
        timestamps: Sequence[int],
        values: Sequence[bytes | None],
    ) -> list[Refusal]:
        """Count the good events of a batch; return those that the checks refuse."""
        receipt, rules = self._receipt, self._receipt.rules
        columns = to_columns(decoded, self._profiles.open())
        catalogue = self._catalogues[rules.catalogue_version]
        faults = check(columns, timestamps, catalogue, rules.max_age_days, rules.max_ahead_seconds)
        refusals = []
        if faults:
            refusals = [self._refusal(columns, place, fault, values) for place, fault in faults.items()]
            good = np.ones(len(columns), dtype=np.bool_)
            good[list(faults)] = False
            columns = columns.keep(good)
        receipt.events += len(columns)
        self._flush.events += len(columns)
        hashes = event_hashes(columns.source, columns.event_id)
        first = self._memory.first_seen(hashes.tolist())
        if first is not None:
            new = np.array(first, dtype=np.bool_)
            duplicates = first.count(False)
            receipt.duplicates += duplicates
            self._flush.duplicates += duplicates
            columns, hashes = columns.keep(new), hashes[new]
        if not len(columns):
            return refusals
        receipt.accepted += len(columns)
        receipt.event_hash_sum = (receipt.event_hash_sum + int(hashes.sum())) & _HASH_MASK
        durations = whole_milliseconds(columns.duration_ms)
        users = user_hashes(columns.user)
        self._minutes.add(columns.profiles, columns.profile, columns.time_ms, durations, bucket_of(durations), users)
        places = np.array(offsets, dtype=np.int64)[columns.record]
        self._flush.ledger_parts.append(ledger_of(self.log, places, columns, hashes, durations, users))
        return refusals

    @staticmethod
    def _refusal(columns: EventColumns, place: int, fault: Fault, values: Sequence[bytes | None]) -> Refusal:
        record, batch_index = int(columns.record[place]), int(columns.batch_index[place])
        reason, words = fault
        return Refusal(record, batch_index, reason, words, original(values[record], batch_index))
