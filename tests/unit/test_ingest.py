"""The ingest with a sink that fails, blocks and comes back: what is written, in which order, and what never is."""

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from faust.types import TP

from pipeline.catalogue import Catalogue
from pipeline.errors import SchemaError, StoreError
from pipeline.fold.flush import Flush
from pipeline.fold.records import LogPartition
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.fold.segment import MARKER_HEADER
from pipeline.settings import FLUSHES_APART_SECONDS, FoldSettings, WorkerSettings
from sinks.prometheus import Metrics
from streams.ingest import Ingest
from tests.support.fold_model import BASE_MS, CATALOGUE, Item, LogRecord, Store, batch_of

TOPIC = "usage.events"
TP0 = TP(TOPIC, 0)
LOG = LogPartition(TOPIC, "id-of-topic", 0)
RULES = Rules.of(FoldSettings(segment_records=10, max_ahead_seconds=1_000_000), catalogue_version=1)


@dataclass
class FakeSink:
    """Writes to a model of the tables. ``broken`` fails writes, ``gate`` holds them up."""

    store: Store = field(default_factory=Store)
    broken: bool = False
    gate: threading.Event | None = None
    tries: list[int] = field(default_factory=list)
    markers: list[LogPartition] = field(default_factory=list)
    unfit: Exception | None = None
    rules: list[Rules] = field(default_factory=list)

    def prepare(self, rules: Rules) -> None:
        self.rules.append(rules)
        if self.unfit is not None:
            raise self.unfit

    def resume(self, log_starts: Mapping[TP, int], next_rules: Rules) -> dict[TP, ResumePoint]:
        if self.broken:
            raise StoreError("away")
        receipts = sorted((r for r in self.store.receipts.values()), key=lambda r: r.segment)
        opened = {r.segment: r.rules for r in receipts if not r.closed}
        newest = receipts[-1] if receipts else None
        start = min(opened) if opened else newest.next_offset if newest else 0
        inherited = (newest.next_rules or newest.rules) if newest else None
        return {tp: ResumePoint(LOG, start, opened, [], inherited) for tp in log_starts}

    def catalogue(self, version: int) -> Catalogue:
        return CATALOGUE

    def known_rules(self, text: str) -> Rules | None:
        if self.broken:
            raise StoreError("away")
        return next((rules for rules in self.rules if rules.to_json() == text), None)

    def write(self, flush: Flush) -> None:
        self.tries.append(id(flush))
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.broken:
            raise StoreError("away")
        self.store.apply(flush)

    def want_segment_end(self, log: LogPartition, rules: Rules) -> None:
        self.markers.append(log)

    def close(self) -> None:
        pass


def ingest_of(sink: FakeSink, seeks: list[tuple[TP, int]] | None = None, **settings: Any) -> Ingest:
    found: list[tuple[TP, int]] = [] if seeks is None else seeks
    return Ingest(
        sink,
        CATALOGUE,
        RULES,
        WorkerSettings(**{"flush_seconds": 3_600.0, **settings}),
        0.01,
        Metrics(["a1", "a2"]),
        lambda tp, offset: found.append((tp, offset)),
    )


def batch(start: int, stop: int) -> Any:
    return batch_of(LOG, [LogRecord(n, BASE_MS, (Item(n),)) for n in range(start, stop)], start, stop)


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_was_folded_is_written_and_durable() -> None:
    sink = FakeSink()
    ingest = ingest_of(sink)
    assert await ingest.load({TP0: 0}) == {TP0: 0}
    await ingest.add(batch(0, 4))
    assert ingest.durable() == {}
    await ingest.flush()
    assert ingest.durable() == {TP0: 4}
    assert len(sink.store.ledger) == 4
    await ingest.stop()


async def test_a_failed_flush_is_tried_again_with_the_same_content() -> None:
    sink = FakeSink(broken=False)
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    await ingest.add(batch(0, 4))
    sink.broken = True
    flushing = asyncio.create_task(ingest.flush())
    await eventually(lambda: len(sink.tries) >= 3)
    assert ingest.status().last_error
    await ingest.add(batch(4, 6))
    sink.broken = False
    await flushing
    assert len(set(sink.tries)) == 1
    assert len(sink.store.ledger) == 4
    await ingest.stop()
    assert len(sink.store.ledger) == 6
    assert ingest.status().last_error == ""


async def test_nothing_is_written_after_a_flush_that_was_given_up() -> None:
    """Else the receipts of the later flush would vouch for rows of the earlier one that were never written."""
    sink = FakeSink()
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    await ingest.add(batch(0, 8))
    sink.broken = True
    flushing = asyncio.create_task(ingest.flush())
    await eventually(lambda: sink.tries)
    await ingest.add(batch(8, 15))
    stopping = asyncio.create_task(ingest.stop())
    await flushing
    sink.broken = False
    await stopping
    assert sink.store.receipts == {}
    assert sink.store.ledger == {}
    successor = ingest_of(sink)
    assert await successor.load({TP0: 0}) == {TP0: 0}
    await successor.add(batch(0, 15))
    await successor.stop()
    assert len(sink.store.ledger) == 15
    sink.store.check_receipts()


async def test_an_assignment_ends_the_retries_for_the_one_before() -> None:
    sink = FakeSink()
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    await ingest.add(batch(0, 4))
    sink.broken = True
    flushing = asyncio.create_task(ingest.flush())
    await eventually(lambda: sink.tries)
    loading = asyncio.create_task(ingest.load({TP0: 0}))
    await flushing
    sink.broken = False
    assert await loading == {TP0: 0}
    await ingest.add(batch(0, 4))
    await ingest.stop()
    assert len(sink.store.ledger) == 4


async def test_too_much_unwritten_makes_the_agent_wait() -> None:
    sink = FakeSink(gate=threading.Event())
    ingest = ingest_of(sink, flush_events=5, max_pending_events=8)
    running = asyncio.create_task(ingest.run())
    await ingest.load({TP0: 0})
    await ingest.add(batch(0, 6))
    await eventually(lambda: sink.tries)
    adding = asyncio.create_task(ingest.add(batch(6, 12)))
    await asyncio.sleep(0)
    assert not adding.done()
    assert ingest.pending_events == 12
    assert sink.gate is not None
    sink.gate.set()
    await asyncio.wait_for(adding, 30)
    await ingest.stop()
    await running
    assert len(sink.store.ledger) == 12


async def test_flushes_begin_apart_however_few_events_are_wanted_in_one() -> None:
    """Each makes parts in ClickHouse, which it has to merge."""
    began: list[float] = []

    class TimedSink(FakeSink):
        def write(self, flush: Flush) -> None:
            began.append(time.monotonic())
            super().write(flush)

    sink = TimedSink()
    ingest = ingest_of(sink, flush_events=1)
    running = asyncio.create_task(ingest.run())
    await ingest.load({TP0: 0})
    for number in range(4):
        await ingest.add(batch(number, number + 1))
        await eventually(lambda so_far=number: len(sink.store.ledger) > so_far)
    await ingest.stop()
    await running
    assert len(began) == 4
    # What lies between the beginning of a flush and its write differs from flush to flush, by less than this.
    assert min(later - earlier for earlier, later in pairwise(began)) > FLUSHES_APART_SECONDS / 2


def of_backlog(start: int, stop: int, high_water_mark: int) -> Any:
    return replace(batch(start, stop), high_water_mark=high_water_mark)


async def test_a_backlog_puts_a_flush_off_until_it_is_eaten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.ingest._BACKLOG_SECONDS", 3_600.0)
    sink = FakeSink()
    ingest = ingest_of(sink, flush_seconds=FLUSHES_APART_SECONDS)
    running = asyncio.create_task(ingest.run())
    await ingest.load({TP0: 0})
    await ingest.add(of_backlog(0, 4, 9))
    await eventually(lambda: ingest._overdue)
    assert sink.tries == []
    # Now two are left and seven wait: the next ones may be what somebody waits for.
    await ingest.add(of_backlog(4, 7, 9))
    await eventually(lambda: len(sink.store.ledger) == 7)
    assert len(sink.tries) == 1
    await ingest.stop()
    await running


async def test_a_flush_is_put_off_for_a_while_only() -> None:
    """A partition whose log goes on for hours must not keep the others' events from being seen."""
    sink = FakeSink()
    ingest = ingest_of(sink, flush_seconds=0.5)
    running = asyncio.create_task(ingest.run())
    await ingest.load({TP0: 0})
    await ingest.add(of_backlog(0, 4, 1_000_000))
    await eventually(lambda: len(sink.store.ledger) == 4)
    await ingest.stop()
    await running


async def test_a_backlog_is_written_when_enough_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.ingest._BACKLOG_SECONDS", 3_600.0)
    sink = FakeSink()
    ingest = ingest_of(sink, flush_seconds=FLUSHES_APART_SECONDS, flush_events=6)
    running = asyncio.create_task(ingest.run())
    await ingest.load({TP0: 0})
    await ingest.add(of_backlog(0, 4, 1_000_000))
    await eventually(lambda: ingest._overdue)
    await ingest.add(of_backlog(4, 6, 1_000_000))
    await eventually(lambda: len(sink.store.ledger) == 6)
    await ingest.stop()
    await running


async def test_what_is_being_written_does_not_count_for_the_next_flush() -> None:
    """Else each flush begins as the one before ends, with what came in between: small parts, and ever smaller ones."""
    sink = FakeSink(gate=threading.Event())
    ingest = ingest_of(sink, flush_events=5)
    running = asyncio.create_task(ingest.run())
    await ingest.load({TP0: 0})
    await ingest.add(batch(0, 6))
    await eventually(lambda: sink.tries)
    await ingest.add(batch(6, 9))
    assert not ingest._wanted.is_set()
    await ingest.add(batch(9, 11))
    assert ingest._wanted.is_set()
    assert sink.gate is not None
    sink.gate.set()
    await eventually(lambda: len(sink.store.ledger) == 11)
    assert len(sink.tries) == 2
    await ingest.stop()
    await running


def test_by_default_a_flush_can_be_folded_while_another_one_is_written() -> None:
    settings = WorkerSettings()
    assert settings.max_pending_events >= 2 * settings.flush_events


async def test_records_that_were_missed_are_fetched_again_and_repeated_ones_dropped() -> None:
    seeks: list[tuple[TP, int]] = []
    ingest = ingest_of(FakeSink(), seeks)
    await ingest.load({TP0: 0})
    await ingest.add(batch(0, 3))
    await ingest.add(batch(5, 7))
    assert seeks == [(TP0, 3)]
    await ingest.add(batch(0, 3))
    assert seeks == [(TP0, 3)]
    await ingest.add(batch(3, 7))
    assert ingest.status().partitions[0]["position"] == 7
    await ingest.stop()


async def test_batches_of_a_partition_that_is_no_longer_assigned_are_dropped() -> None:
    ingest = ingest_of(FakeSink())
    await ingest.load({})
    await ingest.add(batch(0, 3))
    assert ingest.pending_events == 0
    await ingest.stop()


async def test_an_open_segment_under_other_rules_is_asked_to_end() -> None:
    sink = FakeSink()
    old = Rules.of(FoldSettings(segment_records=7, max_ahead_seconds=1_000_000), catalogue_version=1)
    fold = sink.store.resume(LOG, old)
    fold.add(batch(0, 2))
    sink.store.apply(fold.take())
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    assert sink.markers == [LOG]
    await ingest.add(batch(0, 9))
    await ingest.stop()
    assert sorted(receipt.next_offset for receipt in sink.store.receipts.values()) == [7, 9]


def with_marker(start: int, stop: int, marker: int, text: str) -> Any:
    """A batch in which the record at offset ``marker`` is a marker that asks for the rules ``text``."""
    plain = batch(start, stop)
    values, headers = list(plain.values), list(plain.headers)
    values[marker - start], headers[marker - start] = b"", [(MARKER_HEADER, text.encode())]
    return replace(plain, values=values, headers=headers)


def chain(sink: FakeSink) -> list[tuple[int, int, int]]:
    """Start, end and length by the rules of each segment."""
    return sorted((r.segment, r.next_offset, r.rules.segment_records) for r in sink.store.receipts.values())


async def test_a_marker_brings_the_rules_of_another_worker_and_none_that_no_worker_ever_had() -> None:
    sink = FakeSink()
    other = Rules.of(FoldSettings(segment_records=3, max_ahead_seconds=1_000_000), catalogue_version=1)
    made_up = Rules.of(FoldSettings(segment_records=1, max_ahead_seconds=1_000_000), catalogue_version=1)
    sink.rules.append(other)
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    await ingest.add(with_marker(0, 5, 1, made_up.to_json()))
    await ingest.add(with_marker(5, 10, 6, other.to_json()))
    await ingest.stop()
    assert chain(sink) == [(0, 2, 10), (2, 7, 10), (7, 10, 3)]
    successor = ingest_of(sink)
    await successor.load({TP0: 0})
    assert sink.markers == [LOG]
    await successor.stop()


async def test_a_marker_waits_for_a_clickhouse_that_is_away() -> None:
    sink = FakeSink()
    other = Rules.of(FoldSettings(segment_records=3, max_ahead_seconds=1_000_000), catalogue_version=1)
    sink.rules.append(other)
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    sink.broken = True
    adding = asyncio.create_task(ingest.add(with_marker(0, 9, 2, other.to_json())))
    await eventually(lambda: ingest.status().last_error == "away")
    assert ingest.status().partitions[0]["position"] == 0
    sink.broken = False
    await asyncio.wait_for(adding, 30)
    await ingest.stop()
    assert chain(sink) == [(0, 3, 10), (3, 6, 3), (6, 9, 3)]


async def test_a_sink_that_is_away_is_waited_for_and_one_that_does_not_fit_is_an_error() -> None:
    sink = FakeSink(unfit=StoreError("away"))
    ingest = ingest_of(sink)
    waiting = asyncio.create_task(ingest.prepare())
    await eventually(lambda: ingest.status().last_error == "away")
    sink.unfit = None
    await waiting
    assert ingest.status().last_error == ""
    other = ingest_of(FakeSink(unfit=SchemaError("too old")))
    with pytest.raises(SchemaError, match="too old"):
        await other.prepare()


async def test_nothing_is_written_after_an_error_that_nobody_expected() -> None:
    sink = FakeSink()
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    await ingest.add(batch(0, 8))
    failure = ZeroDivisionError("a fault of the program")

    def fail(flush: Flush) -> None:
        raise failure

    write, sink.write = sink.write, fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await ingest.flush()
    sink.write = write  # type: ignore[method-assign]
    await ingest.add(batch(8, 12))
    await ingest.flush()
    assert sink.store.receipts == {}
    assert await ingest.load({TP0: 0}) == {TP0: 0}
    await ingest.add(batch(0, 12))
    await ingest.stop()
    assert len(sink.store.ledger) == 12


async def test_nothing_is_written_after_a_fold_that_failed_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = FakeSink()
    ingest = ingest_of(sink)
    await ingest.load({TP0: 0})
    monkeypatch.setattr("pipeline.fold.fold.user_hashes", lambda users: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await ingest.add(batch(0, 8))
    await ingest.stop()
    assert sink.store.receipts == {}


async def test_too_many_unwritten_bytes_make_the_agent_wait_and_are_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused events keep their original bytes, however few they are."""
    monkeypatch.setattr("streams.ingest._SHORT_SECONDS", 0.01)
    sink = FakeSink(gate=threading.Event())
    ingest = ingest_of(sink, max_pending_bytes=30_000)
    metrics: Any = ingest._metrics
    running = asyncio.create_task(ingest.run())
    await ingest.load({TP0: 0})
    large = LogRecord(0, BASE_MS, (), junk=True)
    batches = [batch_of(LOG, [replace(large, offset=n)], n, n + 1) for n in range(5)]
    batches = [
        replace(one, values=[b"x" * 9_000], keys=[b"k" * 500], headers=[(("h" * 100, b"v" * 395), ("none", None))])
        for one in batches
    ]
    with caplog.at_level("WARNING"):
        await ingest.add(batches[0])
        await eventually(lambda: sink.tries)
        for one in batches[1:3]:
            await ingest.add(one)
        assert ingest.pending_bytes == ingest.status().pending_bytes == 29_997
        assert ingest.standing().held_since is None
        adding = asyncio.create_task(ingest.add(batches[3]))
        await eventually(lambda: "back-pressure: too much" in caplog.text)
        assert metrics.registry.get_sample_value("xidmet_back_pressure") == 1
        assert metrics.registry.get_sample_value("xidmet_pending_bytes") == 39_996
        assert ingest.standing().held_since is not None
        assert not adding.done()
        assert sink.gate is not None
        sink.gate.set()
        await asyncio.wait_for(adding, 30)
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.message for record in told] == [
        "back-pressure: too much waits to be written, folding waits",
        "back-pressure is over, folding goes on",
    ]
    assert vars(told[0])["pending_bytes"] == 39_996
    assert metrics.registry.get_sample_value("xidmet_back_pressure") == 0
    await ingest.stop()
    await running
    assert ingest.pending_bytes == 0


async def test_an_assignment_ends_back_pressure_for_the_one_before() -> None:
    sink = FakeSink(broken=False)
    ingest = ingest_of(sink, max_pending_bytes=10)
    await ingest.load({TP0: 0})
    adding = asyncio.create_task(ingest.add(batch(0, 4)))
    await eventually(lambda: ingest.standing().held_since is not None)
    assert await ingest.load({TP0: 0}) == {TP0: 0}
    await asyncio.wait_for(adding, 30)
    assert ingest.pending_bytes == 0
    await ingest.stop()


async def test_what_a_sink_does_is_seen_while_it_does_it() -> None:
    now = [100.0]
    sink = FakeSink(gate=threading.Event())
    ingest = Ingest(
        *(sink, CATALOGUE, RULES, WorkerSettings(flush_seconds=3_600.0), 0.01, Metrics([])),
        lambda tp, offset: None,
        clock=lambda: now[0],
    )
    await ingest.load({TP0: 0})
    await ingest.add(batch(0, 4))
    before = ingest.standing()
    assert (before.call, before.call_since, before.flushing_since) == ("", None, None)
    now[0] = 105.0
    flushing = asyncio.create_task(ingest.flush())
    await eventually(lambda: sink.tries)
    during = ingest.standing()
    assert (during.call, during.call_since, during.flushing_since) == ("writing", 105.0, 105.0)
    assert (during.partitions[TP0].durable, during.partitions[TP0].moved_at) == (0, 100.0)
    now[0] = 107.0
    assert sink.gate is not None
    sink.gate.set()
    await flushing
    after = ingest.standing()
    assert (after.call_since, after.flushing_since) == (None, None)
    assert (after.partitions[TP0].durable, after.partitions[TP0].moved_at) == (4, 107.0)
    await ingest.stop()


async def test_positions_that_can_be_read_again_end_the_error_without_a_flush() -> None:
    """An idle topic has no flush; the worker was not ready for ever after an outage in a rebalance."""
    sink = FakeSink(broken=True)
    ingest = ingest_of(sink)
    loading = asyncio.create_task(ingest.load({TP0: 0}))
    await eventually(lambda: ingest.status().last_error)
    sink.broken = False
    await loading
    assert ingest.status().last_error == ""
    await ingest.stop()


async def test_a_large_batch_is_folded_in_pieces_so_that_the_bounds_hold_within_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.ingest._PIECE_BYTES", 1_000)
    sink = FakeSink(gate=threading.Event())
    ingest = ingest_of(sink, max_pending_events=12)
    running = asyncio.create_task(ingest.run())
    await ingest.load({TP0: 0})
    whole = batch(0, 60)
    # Holes within and at the end, as transactions leave them.
    offsets = [2 * offset for offset in whole.offsets]
    whole = replace(whole, offsets=offsets, next_offset=130)
    adding = asyncio.create_task(ingest.add(whole))
    await eventually(lambda: ingest.standing().held_since is not None)
    assert 12 <= ingest.pending_events < 20
    assert ingest.standing().partitions[TP0].position < 60
    assert sink.gate is not None
    sink.gate.set()
    await asyncio.wait_for(adding, 30)
    assert ingest.standing().partitions[TP0].position == 130
    await ingest.stop()
    await running
    assert len(sink.store.ledger) == 60
    sink.store.check_receipts()


async def test_the_rest_of_a_batch_is_dropped_when_the_partition_is_assigned_anew_within_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.ingest._PIECE_BYTES", 1_000)
    sink = FakeSink()
    ingest = ingest_of(sink, max_pending_events=12)
    await ingest.load({TP0: 0})
    adding = asyncio.create_task(ingest.add(batch(0, 60)))
    await eventually(lambda: ingest.standing().held_since is not None)
    assert await ingest.load({TP0: 0}) == {TP0: 0}
    await asyncio.wait_for(adding, 30)
    assert (ingest.pending_events, ingest.standing().partitions[TP0].position) == (0, 0)
    running = asyncio.create_task(ingest.run())
    await ingest.add(batch(0, 60))
    await ingest.stop()
    await running
    assert len(sink.store.ledger) == 60
