"""The writer: any number of writes of any versions in any order give the totals of the log."""

import random
from collections import Counter

import pytest

from pipeline.fold.flush import Flush
from pipeline.fold.ledger import LEDGER_COLUMN_NAMES
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import Client
from sinks.clickhouse.writer import write_results
from tests.support.minute_rows import minute_rows
from tests.support.sink_suite.data import (
    OTHER_LOG,
    START,
    Log,
    count,
    duration,
    folded,
    hash_of,
    is_use,
    migrated,
    minute,
    mixed_log,
    rows,
    synthetic,
    typical_log,
    write,
)


def assert_views_say(client: Client, *logs: Log) -> None:
    """All views tell the figures counted from the events themselves."""
    accepted = [event for log in logs for event in log.accepted]
    by_minute = count(accepted, "agency", "minute")
    usage = rows(
        client,
        "SELECT agency, toUnixTimestamp(minute) AS at, sum(uses), sum(duration_ms_sum), uniqCombined64Merge(users),"
        " arraySum(mapValues(sumMap(histogram))) FROM usage GROUP BY agency, at",
    )
    assert {(agency, at): tuple(figures) for agency, at, *figures in usage} == {
        key: (group.uses, sum(group.durations), len(group.people), group.uses) for key, group in by_minute.items()
    }
    hours = rows(
        client,
        "SELECT agency, toUnixTimestamp(hour), uses, people, failures, mean_ms, p50_ms, p95_ms, p99_ms"
        " FROM agency_hours",
    )
    by_hour = count(accepted, "agency", "hour")
    assert {(agency, hour) for agency, hour, *_ in hours} == set(by_hour)
    for agency, hour, uses, people, failures, mean, *quantiles in hours:
        group = by_hour[agency, hour]
        assert (uses, people, failures) == (group.uses, len(group.people), group.failures)
        assert mean == pytest.approx(sum(group.durations) / group.uses)
        exact = [group.quantile(share) for share in (0.50, 0.95, 0.99)]
        assert quantiles == pytest.approx(exact, rel=0.01)
    events = rows(
        client,
        "SELECT agency, service, event_hash, toUnixTimestamp(toStartOfMinute(time)), channel, outcome, stage,"
        " duration_ms, event_id, application FROM events",
    )
    assert sorted(events) == sorted(
        (
            event["data"]["agency"],
            event["data"]["service"],
            hash_of(event),
            minute(event),
            event["data"].get("channel", ""),
            event["data"].get("outcome", ""),
            event["data"].get("stage", ""),
            duration(event) if is_use(event) else 0,
            event["id"],
            event["data"].get("application", ""),
        )
        for event in accepted
    )
    reasons: Counter[str] = Counter()
    seen = duplicates = 0
    for rejected, events_seen, repeated in rows(client, "SELECT rejected, events, duplicates FROM segments"):
        reasons.update(rejected)
        seen += events_seen
        duplicates += repeated
    assert reasons == sum((log.rejected for log in logs), Counter())
    assert duplicates == sum(log.duplicates for log in logs)
    assert seen == len(accepted) + reasons.total() + duplicates
    ((total,),) = rows(client, "SELECT sum(rejected_total) FROM segments")
    assert total == reasons.total()


class TestWriter:
    @pytest.fixture
    def log(self) -> Log:
        return typical_log()

    def test_one_write_gives_the_totals_of_a_naive_count(self, store: ClickHouseSettings, log: Log) -> None:
        with migrated(store) as client:
            write(client, folded(log))
            assert_views_say(client, log)

    def test_each_flush_written_twice_changes_nothing(self, store: ClickHouseSettings, log: Log) -> None:
        with migrated(store) as client:
            for flush in folded(log, 25):
                write(client, [flush, flush])
            assert_views_say(client, log)

    @pytest.mark.parametrize("seed", [1, 2])
    def test_flushes_may_come_in_any_order_and_any_number_of_times(
        self, store: ClickHouseSettings, log: Log, seed: int
    ) -> None:
        # Two workers cut the log into flushes of their own, and both write.
        flushes = folded(log, 25) + folded(log, 17)
        flushes += flushes[::3]
        random.Random(seed).shuffle(flushes)
        with migrated(store) as client:
            write(client, flushes)
            assert_views_say(client, log)

    def test_an_older_version_written_after_a_newer_one_is_without_effect(
        self, store: ClickHouseSettings, log: Log
    ) -> None:
        flushes = folded(log, 25)
        with migrated(store) as client:
            write(client, flushes)
            write(client, flushes[::-1])
            assert_views_say(client, log)
            client.execute("OPTIMIZE TABLE minutes FINAL")
            client.execute("OPTIMIZE TABLE receipts FINAL")
            client.execute("OPTIMIZE TABLE ledger FINAL")
            write(client, flushes[:1])
            assert_views_say(client, log)

    def test_a_flush_of_several_partitions_is_the_sum_of_them(self, store: ClickHouseSettings, log: Log) -> None:
        other = mixed_log(synthetic(150, seed=2, start=START.replace(hour=13)), OTHER_LOG)
        together = Flush()
        for flush in (*folded(log, 1_000), *folded(other, 1_000)):
            together.extend(flush)
        with migrated(store) as client:
            write(client, [together])
            assert_views_say(client, log, other)

    def test_a_flush_is_not_changed_by_writing_it(self, store: ClickHouseSettings, log: Log) -> None:
        (flush,) = folded(log, 1_000)
        (same,) = folded(log, 1_000)
        with migrated(store) as client:
            write(client, [flush])
        for name in LEDGER_COLUMN_NAMES:
            assert list(getattr(flush.ledger, name)) == list(getattr(same.ledger, name))
        assert flush.receipts == same.receipts
        assert [row.users.tolist() for row in minute_rows(flush)] == [row.users.tolist() for row in minute_rows(same)]
        assert [row.histogram for row in minute_rows(flush)] == [row.histogram for row in minute_rows(same)]

    def test_an_empty_flush_writes_nothing(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            write(client, [Flush()])
            write_results(client, Flush())
            assert rows(client, "SELECT count() FROM segments") == [(0,)]

    def test_events_of_many_months_are_written_at_once(self, store: ClickHouseSettings) -> None:
        log = Log()
        for year in range(2017, 2027):
            for month in range(1, 13):
                moment = START.replace(year=year, month=month, day=1)
                (event,) = synthetic(1, seed=year * 12 + month, start=moment)
                if moment < START:
                    log.add([event])
        assert log.end > 100
        log.timestamps = [log.timestamps[-1]] * log.end
        with migrated(store) as client:
            write(client, folded(log, 1_000))
            assert_views_say(client, log)
