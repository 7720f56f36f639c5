"""Rules that begin where a partition stands: who resumes inherits them, and nothing that was counted changes."""

from dataclasses import replace

import pytest
from msgspec import structs

from pipeline.fold.flush import Flush
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.audit import audit
from sinks.clickhouse.client import Client
from sinks.clickhouse.positions import resume
from sinks.clickhouse.rule_change import Place, begin, newest_topic_id, obstacles, partitions_folded, place_of
from sinks.clickhouse.rules import first_rules
from sinks.clickhouse.writer import write_openings, write_receipts, write_rows
from tests.support.sink_suite.data import (
    LOG,
    OTHER_LOG,
    RULES,
    Log,
    folded,
    migrated,
    mixed_log,
    new_fold,
    rows,
    synthetic,
    write,
)
from tests.support.sink_suite.writer import assert_views_say

SIZE = RULES.segment_records
MENDED = structs.replace(RULES, segment_records=SIZE // 2 + 3, memory_segments=3)
COUNTS = "SELECT segment, next_offset, records, events, accepted, duplicates, rejected FROM segments ORDER BY segment"


def part(log: Log, stop: int) -> Log:
    """The log up to an offset."""
    return Log(LOG, log.values[:stop], log.timestamps[:stop])


def change(client: Client) -> Place:
    """Let the mended rules begin; where the partition stood."""
    place = place_of(client, LOG)
    assert place.in_force == RULES
    assert obstacles(client, [place]) == {}
    begin(client, place, MENDED)
    return place


class TestRuleChange:
    @pytest.fixture
    def log(self) -> Log:
        return mixed_log(synthetic(400))

    def test_where_nothing_was_folded_no_rules_are_in_force(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            place = place_of(client, LOG)
            assert (place.newest, place.in_force, obstacles(client, [place])) == (None, None, {})
            assert (newest_topic_id(client, LOG.topic), partitions_folded(client, LOG.topic_id)) == (None, [])

    def test_a_partition_that_a_worker_had_and_did_not_fold_begins_with_the_new_rules(
        self, store: ClickHouseSettings, log: Log
    ) -> None:
        """A worker that stops before its first flush, since it refuses nearly everything, leaves no receipt."""
        with migrated(store) as client:
            assert first_rules(client, [LOG], RULES) == {LOG: RULES}
            assert change(client).step == "first"
            assert place_of(client, LOG).in_force == MENDED
            assert first_rules(client, [LOG], RULES) == {LOG: MENDED}
            write(client, folded(part(log, 7)))
            assert obstacles(client, [Place(LOG, None, begun=RULES)]) != {}

    @pytest.mark.parametrize(
        ("stop", "step", "closed"), [(2 * SIZE, "next", True), (2 * SIZE + 7, "close", False), (5, "close", False)]
    )
    def test_the_next_segment_has_the_new_rules_and_what_was_counted_stays(
        self, store: ClickHouseSettings, log: Log, stop: int, step: str, closed: bool
    ) -> None:
        with migrated(store) as client:
            write(client, folded(part(log, stop)))
            before = rows(client, COUNTS)
            place = change(client)
            assert place.newest is not None
            assert (place.step, place.newest.closed, place.newest.next_offset) == (step, closed, stop)
            # Also once it was merged, and repeated after it.
            for _ in range(2):
                assert place_of(client, LOG).in_force == MENDED
                point = resume(client, LOG, 0, RULES)
                assert (point.start, point.opened, point.in_force) == (stop, {}, MENDED)
                assert rows(client, COUNTS) == before
                client.execute("OPTIMIZE TABLE receipts FINAL")
                begin(client, place, MENDED)
            fold = new_fold(LOG, MENDED, point)
            write(client, folded(log, 19, fold))
            assert_views_say(client, log)
            assert audit(client).findings == []
            assert rows(client, "SELECT segment, rules FROM segments WHERE next_offset > segment ORDER BY segment") == [
                (segment, (RULES if segment < stop else MENDED).to_json())
                for segment in [*range(0, stop, SIZE), *range(stop, log.end, MENDED.segment_records)]
            ]

    def test_a_segment_that_was_opened_and_not_begun_is_opened_again(self, store: ClickHouseSettings, log: Log) -> None:
        fold = new_fold()
        begun, (lost,) = folded(part(log, SIZE), fold=fold), folded(part(log, SIZE + 5), fold=fold)
        with migrated(store) as client:
            write(client, begun)
            write_openings(client, lost)
            assert change(client).step == "open"
            for _ in range(2):
                point = resume(client, LOG, 0, RULES)
                assert (point.start, point.opened) == (SIZE, {SIZE: MENDED})
                client.execute("OPTIMIZE TABLE receipts FINAL")
            write(client, folded(log, 19, new_fold(LOG, RULES, point)))
            assert_views_say(client, log)
            assert audit(client).findings == []

    @pytest.mark.parametrize("stop", [SIZE, SIZE + 7])
    @pytest.mark.parametrize("table", ["ledger", "coordinates", "minutes"])
    def test_rows_that_no_receipt_vouches_for_are_an_obstacle(
        self, store: ClickHouseSettings, log: Log, table: str, stop: int
    ) -> None:
        """As a worker leaves them that dies in the middle of a flush; with the segment open or only opened."""
        fold = new_fold()
        begun, (lost,) = folded(part(log, stop), 1_000, fold), folded(part(log, SIZE + 11), 1_000, fold)
        with migrated(store) as client:
            write(client, begun)
            write_openings(client, lost)
            place = place_of(client, LOG)
            assert (place.step, obstacles(client, [place])) == ("open" if stop == SIZE else "close", {})
            write_rows(client, lost)
            for other in {"ledger", "coordinates", "minutes"} - {table}:
                client.execute(f"TRUNCATE TABLE {other}")
            assert obstacles(client, [place]) == {
                LOG: f"{table} has rows from offset {stop} on, which no receipt vouches for: a worker died in the"
                " middle of a flush"
            }
            # The same offsets of another partition, or of the topic made anew, say nothing about this one.
            others = [replace(place, log=other) for other in (OTHER_LOG, replace(LOG, topic_id="second-topic"))]
            assert obstacles(client, others) == {}

    def test_several_open_segments_are_an_obstacle(self, store: ClickHouseSettings, log: Log) -> None:
        fold = new_fold()
        begun, (lost,) = folded(part(log, 5), fold=fold), folded(log, 1_000, fold)
        with migrated(store) as client:
            write(client, begun)
            write_openings(client, lost)
            count = 1 + len(lost.openings)
            words = obstacles(client, [place_of(client, LOG)])[LOG]
            assert words == f"an older segment than the newest is open, {count} in all"

    def test_an_open_segment_before_a_closed_one_is_an_obstacle(self, store: ClickHouseSettings, log: Log) -> None:
        (flush,) = folded(part(log, 2 * SIZE), 1_000)
        first, second = flush.receipts
        with migrated(store) as client:
            write(client, [Flush(openings=flush.openings)])
            write_receipts(client, [replace(first, closed=False, next_offset=SIZE - 1), second])
            assert "open, 1 in all" in obstacles(client, [place_of(client, LOG)])[LOG]

    def test_the_topic_that_was_folded_last_is_known_without_kafka(self, store: ClickHouseSettings, log: Log) -> None:
        again = replace(LOG, topic_id="second-topic", partition=3)
        with migrated(store) as client:
            write(client, folded(part(log, 5)))
            assert newest_topic_id(client, LOG.topic) == LOG.topic_id
            write(client, folded(Log(again, log.values[:5], log.timestamps[:5])))
            assert newest_topic_id(client, LOG.topic) == again.topic_id
            assert partitions_folded(client, again.topic_id) == [3]
