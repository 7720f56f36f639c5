"""The fold against an oracle: whatever the batches, the crashes and the writers, the totals are the log's."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contract.reasons import Reason
from pipeline.fold.flush import Flush
from pipeline.fold.fold import PartitionFold
from pipeline.fold.histogram import bucket_of, estimate, quantile, whole_milliseconds
from pipeline.fold.memory import Memory
from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules
from pipeline.fold.segment import MARKER_HEADER
from tests.support.fold_model import (
    BASE_MS,
    CATALOGUE,
    HOUR_MS,
    STEPS,
    Item,
    LogRecord,
    Store,
    Totals,
    batch_of,
    feed,
    oracle,
)
from tests.support.minute_rows import minute_rows

RULES = Rules(
    segment_records=5,
    segment_bytes=4_000,
    memory_segments=1,
    max_age_days=3650,
    max_ahead_seconds=10 * HOUR_MS,
    catalogue_version=1,
)
LOGS = [LogPartition("usage.events", "id-of-topic", number) for number in range(3)]

items = st.builds(
    Item,
    id=st.integers(0, 30),
    agency=st.sampled_from(["a1", "a2"]),
    service=st.sampled_from(["s1", "s2"]),
    minute=st.integers(0, 3),
    duration=st.integers(0, 5_000),
    user=st.integers(0, 4),
    good=st.sampled_from([True, True, True, False]),
)


@st.composite
def logs(draw: st.DrawFn, partitions: int = 2) -> list[list[LogRecord]]:
    """Logs with holes between offsets, time stamps that go forth and back over hours, batches and junk."""
    result = []
    for _ in range(partitions):
        offset = draw(st.integers(0, 3))
        log = []
        for _ in range(draw(st.integers(0, 25))):
            log.append(
                LogRecord(
                    offset=offset,
                    timestamp=BASE_MS + draw(st.integers(0, 3 * HOUR_MS)),
                    items=tuple(draw(st.lists(items, min_size=1, max_size=4))),
                    junk=draw(st.integers(0, 9)) == 0,
                )
            )
            offset += draw(st.sampled_from([1, 1, 1, 2, 7]))
        result.append(log)
    return result


rules_drawn = st.builds(
    lambda records, weight, memory: replace_rules(records, weight, memory),
    st.integers(1, 8),
    st.integers(1, 4_000),
    st.integers(1, 3),
)


def replace_rules(records: int, weight: int, memory: int) -> Rules:
    return Rules(
        segment_records=records,
        segment_bytes=weight,
        memory_segments=memory,
        max_age_days=RULES.max_age_days,
        max_ahead_seconds=RULES.max_ahead_seconds,
        catalogue_version=1,
    )


def assert_same(store: Store, expected: Totals) -> None:
    found = store.totals()
    assert found.uses == expected.uses
    assert found.durations == expected.durations
    assert found.ledger == expected.ledger
    assert (found.accepted, found.duplicates, found.rejected) == (
        expected.accepted,
        expected.duplicates,
        expected.rejected,
    )
    assert len(store.letters) == expected.rejected
    for key, people in expected.people.items():
        assert store.people(key) == len(people)
    store.check_receipts()


@settings(max_examples=60, deadline=None)
@given(logs(), rules_drawn, st.data())
def test_any_split_into_batches_gives_the_totals_of_the_oracle(
    drawn: list[list[LogRecord]], rules: Rules, data: st.DataObject
) -> None:
    store = Store()
    folds = [store.resume(log, rules) for log in LOGS[: len(drawn)]]
    left = [len(log) for log in drawn]
    while any(left):
        number = data.draw(st.sampled_from([place for place, count in enumerate(left) if count]))
        count = data.draw(st.integers(1, left[number]))
        feed(folds[number], drawn[number], count)
        left[number] -= count
        if data.draw(st.booleans()):
            store.apply(folds[number].take())
    for fold in folds:
        store.apply(fold.take())
    assert_same(store, oracle(drawn, rules))


@settings(max_examples=100, deadline=None)
@given(logs(), rules_drawn, st.data())
def test_crashes_anywhere_and_several_writers_at_once_give_the_totals_of_the_oracle(
    drawn: list[list[LogRecord]], rules: Rules, data: st.DataObject
) -> None:
    """Workers fold the same partitions side by side, none is fenced; flushes stop after any step and come late."""
    store = Store()
    workers: list[dict[int, PartitionFold]] = [{}, {}, {}]
    delayed = []
    for _ in range(data.draw(st.integers(0, 25))):
        worker = data.draw(st.sampled_from(workers))
        number = data.draw(st.integers(0, len(drawn) - 1))
        action = data.draw(st.sampled_from(["assign", "fold", "flush", "crash", "delay", "late"]))
        if action == "late" and delayed:
            store.apply(delayed.pop(data.draw(st.integers(0, len(delayed) - 1))))
        elif action == "assign" or number not in worker:
            worker[number] = store.resume(LOGS[number], rules)
        elif action == "fold":
            feed(worker[number], drawn[number], data.draw(st.integers(1, 8)))
        elif action == "flush":
            store.apply(worker[number].take())
        elif action == "crash":
            store.apply(worker.pop(number).take(), data.draw(st.integers(0, len(STEPS))))
        elif action == "delay":
            # A zombie: stopped with a flush in hand, which it writes whenever it wakes up.
            delayed.append(worker[number].take())
    for number, log in enumerate(drawn):
        fold = store.resume(LOGS[number], rules)
        feed(fold, log, len(log))
        store.apply(fold.take())
    for flush in delayed:
        store.apply(flush)
    for number, log in enumerate(drawn):
        # The last word of the log's owner; zombies may have re-opened nothing that it closed.
        fold = store.resume(LOGS[number], rules)
        feed(fold, log, len(log))
        store.apply(fold.take())
    assert_same(store, oracle(drawn, rules))


@settings(max_examples=50, deadline=None)
@given(logs(partitions=1), rules_drawn, st.integers(1, 8), st.data())
def test_new_rules_begin_after_a_marker_and_replays_decide_alike(
    drawn: list[list[LogRecord]], rules: Rules, new_records: int, data: st.DataObject
) -> None:
    new_rules = replace_rules(new_records, rules.segment_bytes, rules.memory_segments + 1)
    (log,) = drawn
    before = data.draw(st.integers(0, len(log)))
    marked = list(log)
    if before < len(log):
        marked[before] = replace(log[before], marker=new_rules)
    stores = []
    for crash in (False, True):
        store = Store()
        fold = store.resume(LOGS[0], rules)
        feed(fold, marked, before)
        store.apply(fold.take())
        fold = store.resume(LOGS[0], new_rules)
        feed(fold, marked, len(log))
        store.apply(fold.take(), 4 if crash else len(STEPS))
        if crash:
            fold = store.resume(LOGS[0], new_rules)
            feed(fold, marked, len(log))
            store.apply(fold.take())
        store.check_receipts()
        stores.append(store)
    straight, crashed = stores
    assert straight.totals() == crashed.totals()
    assert straight.receipts == crashed.receipts
    if 0 < before < len(log):
        marker = log[before].offset
        for receipt in straight.receipts.values():
            assert receipt.rules == (rules if receipt.segment <= marker else new_rules)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(items, min_size=1, max_size=2), min_size=10, max_size=30),
    st.builds(replace_rules, st.integers(2, 3), st.just(100_000), st.just(1)),
    st.builds(replace_rules, st.integers(4, 7), st.just(100_000), st.just(4)),
    st.data(),
)
def test_workers_of_different_rules_at_once_open_every_segment_alike(
    batches: list[list[Item]], old: Rules, new: Rules, data: st.DataObject
) -> None:
    """Owners change between old and new rules, each with a marker; former owners go on, unfenced, as zombies do."""
    store, log = Store(), LOGS[0]
    queue = [
        # Every third message holds events that others hold as well.
        tuple(replace(item, id=item.id if n % 3 else 100 * n + m, good=True) for m, item in enumerate(batch))
        for n, batch in enumerate(batches)
    ]
    ids = {f"id-{item.id}" for batch in queue for item in batch}
    published: list[LogRecord] = []

    def publish(items: tuple[Item, ...] = (), marker: Rules | None = None) -> None:
        published.append(LogRecord(len(published), BASE_MS, items, marker=marker))

    def take_over(rules: Rules) -> PartitionFold:
        in_force = store.in_force(log)
        fold = store.resume(log, rules, [old, new])
        if in_force not in (None, rules):
            publish(marker=rules)
        return fold

    # What was never folded has no rules yet: the first segment is opened by one worker.
    publish(queue.pop())
    owners = [take_over(old)]
    feed(owners[0], published, 1)
    store.apply(owners[0].take())
    delayed: list[Flush] = []
    actions = st.sampled_from(["publish", "publish", "fold", "fold", "flush", "crash", "delay", "late", "take over"])
    for action in data.draw(st.lists(actions, min_size=20, max_size=80)):
        fold = data.draw(st.sampled_from(owners))
        if action == "publish" and queue:
            publish(queue.pop())
        elif action == "fold":
            feed(fold, published, data.draw(st.integers(1, 8)))
        elif action == "flush":
            store.apply(fold.take())
        elif action == "crash":
            store.apply(fold.take(), data.draw(st.integers(0, len(STEPS) - 1)))
            owners[owners.index(fold)] = take_over(data.draw(st.sampled_from([old, new])))
        elif action == "delay":
            delayed.append(fold.take())
            owners[owners.index(fold)] = take_over(data.draw(st.sampled_from([old, new])))
        elif action == "late" and delayed:
            store.apply(delayed.pop(data.draw(st.integers(0, len(delayed) - 1))))
        elif action == "take over":
            owners.append(take_over(data.draw(st.sampled_from([old, new]))))
    while queue:
        publish(queue.pop())
    for flush in delayed:
        store.apply(flush)
    fold = take_over(new)
    feed(fold, published, len(published))
    store.apply(fold.take())
    store.check_receipts()
    assert store.ledger.keys() == ids


def records(count: int, *, step_ms: int = 0, start: int = 0) -> list[LogRecord]:
    return [LogRecord(start + n, BASE_MS + n * step_ms, (Item(start + n),)) for n in range(count)]


def fold_all(log: Sequence[LogRecord], rules: Rules = RULES) -> Store:
    store = Store()
    fold = store.resume(LOGS[0], rules)
    feed(fold, log, len(log))
    store.apply(fold.take())
    return store


def segments(store: Store) -> list[tuple[int, int, bool]]:
    return sorted((item.segment, item.next_offset, item.closed) for item in store.receipts.values())


def test_a_segment_ends_when_it_is_full() -> None:
    assert segments(fold_all(records(12))) == [(0, 5, True), (5, 10, True), (10, 12, False)]


def test_a_segment_that_is_exactly_full_is_closed_at_once() -> None:
    assert segments(fold_all(records(5))) == [(0, 5, True)]


def test_a_segment_ends_at_the_hour_but_not_when_time_stamps_go_back() -> None:
    stamps = [HOUR_MS - 2, HOUR_MS, HOUR_MS - 1, HOUR_MS + 1]
    log = [LogRecord(n, BASE_MS + stamp, (Item(n),)) for n, stamp in enumerate(stamps)]
    assert segments(fold_all(log)) == [(0, 1, True), (1, 4, False)]


def test_a_time_stamp_far_ahead_cannot_cut_the_log_to_pieces() -> None:
    far = BASE_MS + 1_000 * HOUR_MS
    log = [LogRecord(n, far if n % 2 else BASE_MS, (Item(n),)) for n in range(4)]
    assert segments(fold_all(log)) == [(0, 1, True), (1, 4, False)]


def test_a_segment_ends_when_its_values_weigh_enough() -> None:
    size = len(records(1)[0].value)
    rules = replace_rules(100, 2 * size, 1)
    assert segments(fold_all(records(5), rules)) == [(0, 2, True), (2, 4, True), (4, 5, False)]


def test_records_without_a_time_stamp_are_folded() -> None:
    log = [replace(record, timestamp=-1) for record in records(3)]
    assert segments(fold_all(log)) == [(0, 3, False)]


def test_a_marker_ends_its_segment_and_holds_no_event() -> None:
    store = Store()
    fold = store.resume(LOGS[0], RULES)
    batch = batch_of(LOGS[0], records(3), 0, 3)
    values, headers = list(batch.values), [list(head) for head in batch.headers]
    values[1], headers[1] = b"", [(MARKER_HEADER, b"{}")]
    fold.add(replace(batch, values=values, headers=headers))
    store.apply(fold.take())
    assert segments(store) == [(0, 2, True), (2, 3, False)]
    assert store.totals().accepted == 2
    assert store.totals().rejected == 0


def test_a_segment_is_opened_in_the_store_before_any_row_of_it_exists() -> None:
    fold = Store().resume(LOGS[0], RULES)
    feed(fold, records(7), 7)
    flush = fold.take()
    assert [(item.segment, item.next_offset, item.records) for item in flush.openings] == [(0, 0, 0), (5, 5, 0)]
    feed(fold, records(9), 9)
    assert not fold.take().openings


def test_an_idle_partition_writes_nothing() -> None:
    fold = Store().resume(LOGS[0], RULES)
    assert not fold.take()


def test_only_rows_that_changed_are_written_again() -> None:
    rules = replace_rules(100, 1_000_000, 1)
    fold = Store().resume(LOGS[0], rules)
    log = [LogRecord(n, BASE_MS, (Item(n, minute=n % 2),)) for n in range(4)]
    log.append(LogRecord(4, BASE_MS, (Item(4, minute=1),)))
    feed(fold, log, 4)
    assert len(minute_rows(fold.take())) == 2
    feed(fold, log, 1)
    (row,) = minute_rows(fold.take())
    assert (row.key.minute, row.events, row.next_offset) == (BASE_MS // 1000 + 60, 3, 5)


def test_offsets_that_retention_deleted_end_the_segment_and_leave_a_hole() -> None:
    store = Store()
    fold = store.resume(LOGS[0], RULES)
    feed(fold, records(2), 2)
    fold.add(replace(batch_of(LOGS[0], [], 2, 10), truncated=True))
    feed(fold, records(2, start=10), 2)
    store.apply(fold.take())
    assert segments(store) == [(0, 2, True), (10, 12, False)]


def test_a_batch_that_does_not_follow_is_a_fault_of_the_caller() -> None:
    fold = Store().resume(LOGS[0], RULES)
    with pytest.raises(ValueError, match="starts at 3"):
        fold.add(batch_of(LOGS[0], records(1, start=3), 3, 4))


def test_a_bad_event_in_a_batch_costs_only_itself() -> None:
    batch = (Item(1), Item(2, good=False), Item(3))
    fold = Store().resume(LOGS[0], RULES)
    feed(fold, [LogRecord(7, BASE_MS, batch)], 1)
    flush = fold.take()
    assert flush.ledger.event_id == ["id-1", "id-3"]
    assert flush.ledger.batch_index.tolist() == [0, 2]
    (reject,) = flush.rejects
    assert (reject.offset, reject.batch_index, reject.reason) == (7, 1, Reason.UNKNOWN_AGENCY)
    assert b'"id-2"' in reject.value
    assert b'"id-1"' not in reject.value


def test_memory_reaches_back_as_many_segments_as_the_rules_say() -> None:
    memory = Memory([[1], [2]], depth=1)
    assert memory.first_seen([1, 2, 3]) == [True, False, True]
    memory.end_segment(next_depth=1)
    assert memory.first_seen([2, 3, 1]) == [True, False, False]


def test_the_catalogue_of_a_version_is_the_one_that_judges() -> None:
    assert CATALOGUE.version == RULES.catalogue_version
    with pytest.raises(KeyError):
        fold_all(
            records(1), Rules(**{**{f: getattr(RULES, f) for f in RULES.__struct_fields__}, "catalogue_version": 2})
        )


@given(st.lists(st.integers(0, 86_400_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_quantiles_from_buckets_are_within_one_percent(durations: list[int], share: float) -> None:
    buckets = bucket_of(whole_milliseconds(np.array(durations, dtype=np.float64))).tolist()
    histogram = {bucket: buckets.count(bucket) for bucket in buckets}
    exact = sorted(durations)[max(1, -int(-share * len(durations) // 1)) - 1]
    assert quantile(histogram, share) == pytest.approx(exact, rel=0.0100001)


@given(st.integers(0, 86_400_000))
def test_every_duration_is_within_one_percent_of_its_bucket(duration: int) -> None:
    (bucket,) = bucket_of(whole_milliseconds(np.array([duration], dtype=np.float64))).tolist()
    assert estimate(bucket) == pytest.approx(duration, rel=0.0100001)
