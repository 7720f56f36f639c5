"""The hard limit: when a worker stops, what it does not write, and what a restart remembers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.contract.reasons import Reason
from pipeline.errors import RejectLimitError
from pipeline.fold.flush import Flush
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.resume import ResumePoint
from pipeline.settings import RejectedSettings, WorkerSettings
from sinks.prometheus import Metrics
from streams.ingest import Ingest
from streams.reject_limit import RejectLimit
from tests.support.fold_model import BASE_MS, CATALOGUE, Item, LogRecord, batch_of
from tests.unit.test_ingest import LOG, RULES, TP0, FakeSink

OTHER = LogPartition(LOG.topic, LOG.topic_id, 1)
SETTINGS = RejectedSettings(stop_share=0.8, window_events=100)


def receipt(segment: int, events: int, rejected: int, log: LogPartition = LOG, **changes: object) -> Receipt:
    made = Receipt(log, segment, segment + events, RULES, events=events, accepted=events - rejected)
    made.rejected = {Reason.UNKNOWN_AGENCY: rejected} if rejected else {}
    return replace(made, **changes)  # type: ignore[arg-type]


def flush(*receipts: Receipt) -> Flush:
    return Flush(receipts=list(receipts))


def exceeds(limit: RejectLimit, *receipts: Receipt) -> bool:
    try:
        limit.check(flush(*receipts))
    except RejectLimitError:
        return True
    return False


def test_below_the_window_nothing_stops_and_at_it_everything_counts() -> None:
    limit = RejectLimit(SETTINGS, RULES)
    assert not exceeds(limit, receipt(0, 99, 99))
    assert exceeds(limit, receipt(0, 100, 100))


@pytest.mark.parametrize(("rejected", "stops"), [(80, False), (81, True)])
def test_the_share_itself_is_still_allowed(rejected: int, stops: bool) -> None:
    assert exceeds(RejectLimit(SETTINGS, RULES), receipt(0, 100, rejected)) is stops


def test_a_share_of_one_never_stops() -> None:
    limit = RejectLimit(RejectedSettings(stop_share=1, window_events=10), RULES)
    assert not exceeds(limit, receipt(0, 1_000, 1_000))


def test_receipts_are_totals_of_a_segment_and_counted_once() -> None:
    limit = RejectLimit(SETTINGS, RULES)
    for events in (30, 60, 90, 30, 90):  # folded again after a rebalance
        assert not exceeds(limit, receipt(0, events, events))
    assert not exceeds(limit, receipt(0, 9, 9, OTHER))
    assert exceeds(limit, receipt(0, 10, 10, OTHER))


def test_only_the_last_events_count() -> None:
    limit = RejectLimit(SETTINGS, RULES)
    assert not exceeds(limit, receipt(0, 1_000, 0))
    assert not exceeds(limit, receipt(1_000, 50, 50))
    assert not exceeds(limit, receipt(1_050, 49, 49))
    assert exceeds(limit, receipt(1_099, 1, 1))


def test_better_times_are_let_through_although_the_window_is_still_bad() -> None:
    limit = RejectLimit(RejectedSettings(stop_share=0.8, window_events=100), RULES)
    limit.resume([ResumePoint(LOG, 0, recent=[receipt(0, 100, 95)])])
    assert not exceeds(limit, receipt(100, 10, 8))
    assert exceeds(limit, receipt(110, 10, 9))


def test_what_is_refused_under_other_rules_does_not_count() -> None:
    limit = RejectLimit(SETTINGS, RULES)
    old = RULES.from_json(RULES.to_json().replace('"catalogue_version":1', '"catalogue_version":7'))
    assert old != RULES
    assert not exceeds(limit, receipt(0, 500, 500, rules=old))
    assert not exceeds(limit, receipt(500, 99, 99))
    assert exceeds(limit, receipt(599, 1, 1))


def test_the_words_say_what_and_how_to_mend_it_and_stay_the_same() -> None:
    limit = RejectLimit(SETTINGS, RULES)
    refused = replace(receipt(0, 2_000, 1_900), rejected={Reason.UNKNOWN_AGENCY: 1_500, Reason.NOT_JSON: 400})
    with pytest.raises(RejectLimitError) as first:
        limit.check(flush(refused))
    for words in ("2,000 events 1,900", "unknown_agency 1,500, not_json 400", "rejected.stop_share = 0.8", "version 1"):
        assert words in str(first.value)
    with pytest.raises(RejectLimitError) as second:
        limit.check(flush(receipt(5_000, 10, 0)))
    assert second.value is first.value


def test_a_restart_takes_over_what_the_receipts_say() -> None:
    limit = RejectLimit(SETTINGS, RULES)
    recent = [receipt(0, 40, 40, closed=True), receipt(40, 20, 20)]
    limit.resume([ResumePoint(LOG, 40, recent=recent), ResumePoint(OTHER, 0, recent=[receipt(0, 39, 39, OTHER)])])
    # The open segment is folded again: not new, and as often as partitions are assigned.
    assert not exceeds(limit, receipt(40, 20, 20))
    limit.resume([ResumePoint(LOG, 40, recent=recent)])
    assert not exceeds(limit, receipt(40, 20, 20))
    assert exceeds(limit, receipt(40, 21, 21))


def test_the_newest_of_all_partitions_are_taken_over() -> None:
    limit = RejectLimit(SETTINGS, RULES)
    good = receipt(0, 500, 0, last_timestamp=2_000)
    bad = receipt(0, 100, 100, OTHER, last_timestamp=1_000)
    limit.resume([ResumePoint(LOG, 500, recent=[good]), ResumePoint(OTHER, 100, recent=[bad])])
    assert not exceeds(limit, receipt(100, 90, 90, OTHER))


# In the ingest


def ingest_of(sink: FakeSink) -> Ingest:
    settings = WorkerSettings(flush_seconds=3_600.0)
    limit = RejectLimit(RejectedSettings(stop_share=0.5, window_events=8), RULES)
    return Ingest(sink, CATALOGUE, RULES, settings, 0.01, Metrics(), lambda tp, offset: None, reject_limit=limit)


def batch(items: Sequence[Item], start: int) -> RecordBatch:
    records = [LogRecord(start + n, BASE_MS, (item,)) for n, item in enumerate(items)]
    return batch_of(LOG, records, start, start + len(records))


def good(*numbers: int) -> list[Item]:
    return [Item(number) for number in numbers]


def bad(*numbers: int) -> list[Item]:
    return [Item(number, good=False) for number in numbers]


class RecentSink(FakeSink):
    """Tells the newest receipts, as the real one does."""

    def resume(self, log_starts, next_rules):  # type: ignore[no-untyped-def]
        points = super().resume(log_starts, next_rules)
        recent = sorted(self.store.receipts.values(), key=lambda item: item.segment)
        return {tp: replace(point, recent=[replace(item) for item in recent]) for tp, point in points.items()}


async def test_the_flush_that_crosses_the_limit_is_not_written_then_or_later() -> None:
    sink = RecentSink()
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    await ingest.add(batch([*good(0, 1), *bad(2, 3)], 0))
    await ingest.flush()
    before = len(sink.tries)
    await ingest.add(batch(bad(4, 5, 6, 7), 4))
    with pytest.raises(RejectLimitError):
        await ingest.flush()
    assert ingest.pending_events == 0
    await ingest.add(batch(good(8), 8))
    await ingest.stop()
    assert (len(sink.tries), len(sink.store.letters), len(sink.store.ledger)) == (before, 2, 2)
    sink.store.check_receipts()


async def test_the_worker_ends_with_the_error_while_it_flushes_by_itself() -> None:
    sink = RecentSink()
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    running = asyncio.create_task(ingest.run())
    await ingest.add(batch(bad(*range(9)), 0))
    ingest._wanted.set()
    with pytest.raises(RejectLimitError):
        await asyncio.wait_for(running, 30)
    await ingest.stop()
    assert sink.tries == []


async def test_a_rebalance_on_the_way_down_writes_nothing_either() -> None:
    sink = RecentSink()
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    await ingest.add(batch(bad(*range(9)), 0))
    with pytest.raises(RejectLimitError):
        await ingest.flush()
    await ingest.load({TP0: 0})
    await ingest.add(batch(bad(0, 1), 0))
    with pytest.raises(RejectLimitError):
        await ingest.flush()
    assert sink.tries == []


async def fold_all(ingest: Ingest, log: Sequence[Item], step: int) -> None:
    """Fold and flush a log from where the receipts say, ``step`` records at a time."""
    start = (await ingest.load({TP0: 0}))[TP0]
    for place in range(start, len(log), step):
        await ingest.add(batch(log[place : place + step], place))
        await ingest.flush()


async def test_a_restart_crosses_the_limit_again_before_anything_new_is_written() -> None:
    """The window of eight spans segments of ten, and is not granted anew by a restart in whichever of them."""
    sink = RecentSink()
    log = [*good(*range(8)), *bad(*range(8, 60))]
    written = []
    for step in (2, 5, 1, 20, 3, 2):
        ingest = ingest_of(sink)
        with pytest.raises(RejectLimitError):
            await fold_all(ingest, log, step)
        written.append(len(sink.store.letters))
        await ingest.stop()
    # The window is eight events and what its oldest piece has more, which a restart takes for a whole segment.
    assert 0 < written[0] <= written[1] <= written[2] <= 8
    assert written[3:] == written[2:3] * 3
    assert sum(item.closed for item in sink.store.receipts.values()) == 1
