"""Where a partition goes on, and what the fold then remembers."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import structs

from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.audit import audit
from sinks.clickhouse.positions import resume
from sinks.clickhouse.rules import first_rules
from sinks.clickhouse.writer import write_openings
from tests.support.sink_suite.data import (
    LOG,
    OTHER_LOG,
    RULES,
    Log,
    connected,
    folded,
    migrated,
    mixed_log,
    new_fold,
    rows,
    synthetic,
    whole_segments,
    write,
)
from tests.support.sink_suite.writer import assert_views_say

SIZE = RULES.segment_records


class TestPositions:
    @pytest.fixture
    def log(self) -> Log:
        return whole_segments()

    @staticmethod
    def hashes(log: Log, *segments: int) -> list[list[int]]:
        """Event hashes that a fold of the log accepts, of each segment."""
        (flush,) = folded(log, 10_000)
        places = list(zip(flush.ledger.offset.tolist(), flush.ledger.event_hash.tolist(), strict=True))
        return [sorted(value for offset, value in places if offset // SIZE == number) for number in segments]

    @staticmethod
    def sorted_memory(memory: list[list[int]]) -> list[list[int]]:
        return [sorted(values) for values in memory]

    def test_a_partition_without_receipts_starts_where_the_log_begins(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            point = resume(client, LOG, 17, RULES)
        assert (point.log, point.start, point.opened, point.memory) == (LOG, 17, {}, [])

    def test_an_open_segment_is_folded_again_from_its_start_under_its_own_rules(
        self, store: ClickHouseSettings, log: Log
    ) -> None:
        with migrated(store) as client:
            write(client, folded(log))
            point = resume(client, LOG, 0, structs.replace(RULES, segment_records=90))
        assert (point.start, point.opened) == (4 * SIZE, {4 * SIZE: RULES})
        assert self.sorted_memory(point.memory) == self.hashes(log, 2, 3)

    def test_a_closed_segment_is_followed_by_a_new_one_at_its_end(self, store: ClickHouseSettings, log: Log) -> None:
        whole = Log(LOG, log.values[: 4 * SIZE], log.timestamps[: 4 * SIZE])
        with migrated(store) as client:
            write(client, folded(whole))
            point = resume(client, LOG, 0, RULES)
        assert (point.start, point.opened) == (4 * SIZE, {})
        assert self.sorted_memory(point.memory) == self.hashes(log, 2, 3)

    def test_the_memory_is_as_deep_as_that_of_a_worker_without_a_restart(
        self, store: ClickHouseSettings, log: Log
    ) -> None:
        """Deeper rules, wanted by a marker, cannot bring back what was forgotten under the shallow ones."""
        whole = Log(LOG, log.values[: 4 * SIZE], log.timestamps[: 4 * SIZE])
        deep = structs.replace(RULES, memory_segments=9)
        with migrated(store) as client:
            flushes = folded(whole)
            flushes[-1].receipts[-1].next_rules = deep
            write(client, flushes)
            point = resume(client, LOG, 0, RULES)
        assert (point.start, point.inherited, point.in_force) == (4 * SIZE, deep, deep)
        assert self.sorted_memory(point.memory) == self.hashes(log, 1, 2, 3)

    def test_a_segment_that_was_only_opened_is_open(self, store: ClickHouseSettings, log: Log) -> None:
        flushes = folded(log, SIZE)
        with migrated(store) as client:
            write(client, flushes[:-1])
            # The worker died between the receipt that opens a segment and everything else.
            write_openings(client, flushes[-1])
            point = resume(client, LOG, 0, RULES)
            assert (point.start, point.opened) == (4 * SIZE, {4 * SIZE: RULES})

    def test_several_segments_opened_by_a_worker_that_died_are_folded_again_each_by_its_rules(
        self, store: ClickHouseSettings
    ) -> None:
        log = mixed_log(synthetic(400))
        first = Log(LOG, log.values[: SIZE // 2], log.timestamps[: SIZE // 2])
        fold = new_fold()
        begun, (lost,) = folded(first, fold=fold), folded(log, 1_000, fold)
        assert [opening.segment for opening in lost.openings] == list(range(SIZE, log.end, SIZE))
        wanted = structs.replace(RULES, segment_records=SIZE * 3 // 2)
        with migrated(store) as client:
            write(client, begun)
            write_openings(client, lost)
            point = resume(client, LOG, 0, wanted)
            assert point.start == 0
            assert point.opened == dict.fromkeys(range(0, log.end, SIZE), RULES)
            write(client, folded(log, 19, new_fold(LOG, wanted, point)))
            assert_views_say(client, log)
            assert audit(client).findings == []

    def test_a_rest_of_the_log_before_an_opened_segment_is_folded_too(self, store: ClickHouseSettings) -> None:
        log = mixed_log(synthetic(400))
        first = Log(LOG, log.values[: SIZE // 2], log.timestamps[: SIZE // 2])
        fold = new_fold()
        begun, (lost,) = folded(first, fold=fold), folded(log, 1_000, fold)
        with migrated(store) as client:
            write(client, begun)
            write_openings(client, lost)
            point = resume(client, LOG, 1, RULES)
            assert point.start == SIZE // 2
            assert point.opened == dict.fromkeys(range(SIZE, log.end, SIZE), RULES)
            write(client, folded(log, 19, new_fold(LOG, point=point)))
            assert_views_say(client, log)
            assert audit(client).findings == []

    @pytest.mark.parametrize("deleted", [1, SIZE // 4, SIZE])
    def test_a_log_that_no_longer_reaches_back_closes_the_segment_and_starts_another(
        self, store: ClickHouseSettings, log: Log, deleted: int
    ) -> None:
        log_start = 4 * SIZE + deleted
        with migrated(store) as client:
            write(client, folded(log))
            before = rows(client, "SELECT segment, next_offset, events, accepted FROM segments ORDER BY segment")
            point = resume(client, LOG, log_start, RULES)
            after = rows(client, "SELECT segment, next_offset, events, accepted FROM segments ORDER BY segment")
            assert after == before
            assert rows(client, "SELECT count() FROM segments WHERE NOT closed") == [(0,)]
            again = resume(client, LOG, log_start, RULES)
        assert (point.start, point.opened) == (max(log.end, log_start), {})
        assert self.sorted_memory(point.memory) == self.hashes(log, 3, 4)
        assert (again.start, again.opened) == (point.start, {})
        assert self.sorted_memory(again.memory) == self.sorted_memory(point.memory)

    def test_what_was_written_beyond_the_receipt_is_not_in_the_memory(
        self, store: ClickHouseSettings, log: Log
    ) -> None:
        flushes = folded(log, SIZE // 2)
        with migrated(store) as client:
            write(client, flushes[:-1])
            flushes[-1].receipts.clear()
            write(client, flushes[-1:])
            point = resume(client, LOG, 0, RULES)
        # The last half segment has an opening receipt and coordinates, none of which is before its start.
        assert point.start == 4 * SIZE
        assert self.sorted_memory(point.memory) == self.hashes(log, 2, 3)

    def test_other_partitions_and_topics_made_again_are_apart(self, store: ClickHouseSettings, log: Log) -> None:
        again = LogPartition(LOG.topic, "second-topic", LOG.partition)
        with migrated(store) as client:
            write(client, folded(log))
            for other in (OTHER_LOG, again):
                point = resume(client, other, 3, RULES)
                assert (point.start, point.opened, point.memory) == (3, {}, [])

    @pytest.mark.parametrize("stop", [1, SIZE - 1, SIZE, 2 * SIZE + 7, 4 * SIZE])
    def test_a_fold_that_goes_on_from_there_ends_in_the_same_totals(self, store: ClickHouseSettings, stop: int) -> None:
        log = mixed_log(synthetic(400))
        first = Log(LOG, log.values[:stop], log.timestamps[:stop])
        with migrated(store) as client:
            write(client, folded(first, 13))
            write(client, folded(log, 19, new_fold(LOG, point=resume(client, LOG, 0, RULES))))
            assert_views_say(client, log)

    def test_whoever_came_first_decides_the_rules_of_the_first_segment(self, store: ClickHouseSettings) -> None:
        others = structs.replace(RULES, segment_records=90)
        with migrated(store) as client:
            assert first_rules(client, [LOG], RULES) == {LOG: RULES}
            assert first_rules(client, [LOG, OTHER_LOG], others) == {LOG: RULES, OTHER_LOG: others}
            # A row that was long on its way: it was written before, so it holds; one that was written later does not.
            for shift, rules in ((-60, others), (60, structs.replace(RULES, segment_records=70))):
                client.execute(
                    "INSERT INTO beginnings (topic_id, partition, rules, at)"
                    f" SELECT topic_id, partition, '{rules.to_json()}', at + INTERVAL {shift} SECOND FROM beginnings"
                    f" WHERE partition = {LOG.partition} ORDER BY at LIMIT 1"
                )
            assert first_rules(client, [LOG, OTHER_LOG], RULES) == {LOG: others, OTHER_LOG: others}
            assert first_rules(client, [], RULES) == {}

    def test_workers_that_come_at_once_agree_on_the_first_segment(self, store: ClickHouseSettings) -> None:
        wanted = [structs.replace(RULES, segment_records=number) for number in range(100, 104)]

        def ask(rules: Rules) -> Rules:
            with connected(store) as client:
                return first_rules(client, [LOG], rules)[LOG]

        with migrated(store), ThreadPoolExecutor(len(wanted)) as threads:
            assert len(set(threads.map(ask, wanted))) == 1
