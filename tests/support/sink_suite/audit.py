"""The audit: silent when all is well, and precise about each thing that is not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from pipeline.contract.reasons import Reason
from pipeline.fold.flush import Flush
from pipeline.fold.records import RecordBatch
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse import audit as audit_module
from sinks.clickhouse.audit import AuditReport, audit
from sinks.clickhouse.client import Client, Column, Parameters, Rows
from sinks.clickhouse.positions import resume
from sinks.clickhouse.writer import write_receipts, write_results
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
    whole_segments,
    write,
)

SIZE = RULES.segment_records
SECOND = f"usage.events[0] offsets {SIZE} to {2 * SIZE}"


def spoil_row(client: Client, table: str, change: str, where: str) -> None:
    client.execute(f"ALTER TABLE {table} {change} WHERE {where} SETTINGS mutations_sync = 1")


def only_finding(client: Client) -> tuple[str, str, str]:
    (finding,) = audit(client).findings
    return finding.check, finding.where, finding.words


def events_of_segment(client: Client, segment: int) -> list[int]:
    found = rows(
        client,
        f"SELECT event_hash FROM coordinates WHERE partition = 0 AND offset >= {segment}"
        f" AND offset < {segment + SIZE} ORDER BY offset, batch_index",
    )
    return [value for (value,) in found]


class Counting:
    """A client that remembers what it was asked."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.asked: list[str] = []

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        self.asked.append(sql)
        return self._client.query(sql, parameters)

    def execute(self, sql: str) -> None:
        self._client.execute(sql)

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        self._client.insert(table, columns)

    def close(self) -> None:
        self._client.close()


class TestAudit:
    @pytest.fixture
    def log(self) -> Log:
        return whole_segments()

    def test_an_empty_database_has_nothing_to_find(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            assert audit(client) == AuditReport()

    def test_a_clean_database_has_no_findings_and_its_totals(self, store: ClickHouseSettings) -> None:
        log, other = mixed_log(synthetic(400)), mixed_log(synthetic(100, seed=2), OTHER_LOG)
        with migrated(store) as client:
            write(client, folded(log) + folded(other) + folded(log, 31))
            report = audit(client)
        accepted = len(log.accepted) + len(other.accepted)
        duplicates = log.duplicates + other.duplicates
        rejected = log.rejected.total() + other.rejected.total()
        assert report == AuditReport(
            segments=-(-log.end // SIZE) + -(-other.end // SIZE),
            open_segments=2,
            records=log.end + other.end,
            events=accepted + duplicates + rejected,
            accepted=accepted,
            duplicates=duplicates,
            rejected=rejected,
            ledger=accepted,
            minutes=accepted,
        )

    @pytest.fixture
    def client(self, store: ClickHouseSettings, log: Log) -> Iterator[Client]:
        with migrated(store) as client:
            write(client, folded(log))
            assert audit(client).findings == []
            yield client

    def test_a_row_missing_in_the_ledger_is_found(self, client: Client) -> None:
        events = events_of_segment(client, SIZE)
        spoil_row(client, "ledger", "DELETE", f"event_hash = {events[3]}")
        check, where, words = only_finding(client)
        assert (check, where) == ("ledger", SECOND)
        assert words == f"{len(events)} accepted, 1 of them are not in the ledger at all"

    def test_a_row_missing_in_the_coordinates_is_found(self, client: Client) -> None:
        events = events_of_segment(client, SIZE)
        spoil_row(client, "coordinates", "DELETE", f"event_hash = {events[3]}")
        check, where, words = only_finding(client)
        assert (check, where) == ("coordinates", SECOND)
        assert words == f"{len(events)} accepted, {len(events) - 1} coordinates"

    def test_coordinates_of_another_event_are_found(self, client: Client) -> None:
        events = events_of_segment(client, SIZE)
        spoil_row(client, "coordinates", f"UPDATE event_hash = {events[4]}", f"event_hash = {events[3]}")
        check, where, words = only_finding(client)
        assert (check, where) == ("coordinates", SECOND)
        assert "not of the same events" in words

    @pytest.mark.parametrize("segment", [SIZE, 4 * SIZE], ids=["closed", "open"])
    def test_a_row_missing_in_the_minutes_is_found(self, client: Client, segment: int) -> None:
        (row, *_) = rows(
            client,
            "SELECT agency, service, toUnixTimestamp(minute), channel, outcome, stage, events FROM minutes FINAL"
            f" WHERE segment = {segment} ORDER BY next_offset, agency, service, minute, channel, outcome, stage",
        )
        agency, service, minute, channel, outcome, stage, events = row
        same = f"segment = {segment} AND agency = '{agency}' AND service = '{service}' AND channel = '{channel}'"
        same += f" AND outcome = '{outcome}' AND stage = '{stage}' AND toUnixTimestamp(minute) = {minute}"
        spoil_row(client, "minutes", "DELETE", same)
        check, where, words = only_finding(client)
        accepted = len(events_of_segment(client, segment))
        assert (check, where.startswith(f"usage.events[0] offsets {segment} to ")) == ("minutes", True)
        assert words == f"{accepted} accepted, the minutes add up to {accepted - events}"

    def test_a_row_changed_in_the_minutes_is_found(self, client: Client) -> None:
        ((agency, service),) = rows(
            client, f"SELECT agency, service FROM minutes FINAL WHERE segment = {SIZE} ORDER BY ALL LIMIT 1"
        )
        one = f"segment = {SIZE} AND agency = '{agency}' AND service = '{service}'"
        spoil_row(client, "minutes", "UPDATE events = events + 7", one)
        check, where, _ = only_finding(client)
        assert (check, where) == ("minutes", SECOND)

    def test_a_receipt_whose_counts_do_not_add_up_is_found(self, client: Client) -> None:
        spoil_row(client, "receipts", "UPDATE events = events + 1", f"segment = {SIZE}")
        check, where, words = only_finding(client)
        assert (check, where) == ("receipt", SECOND)
        assert "accepted + duplicates + rejected" in words

    def test_a_receipt_that_claims_too_much_is_found(self, client: Client) -> None:
        spoil_row(client, "receipts", "UPDATE events = events + 1, accepted = accepted + 1", f"segment = {SIZE}")
        findings = audit(client).findings
        assert {finding.check for finding in findings} == {"coordinates", "minutes"}
        assert {finding.where for finding in findings} == {SECOND}

    def test_a_missing_receipt_is_a_hole_with_minutes_of_no_receipt(self, client: Client) -> None:
        spoil_row(client, "receipts", "DELETE", f"segment = {SIZE}")
        found = {finding.check: finding.where for finding in audit(client).findings}
        assert found == {
            "hole": f"usage.events[0] offsets 0 to {SIZE}",
            "orphan_minutes": f"{LOG.topic_id}[0] segment {SIZE}",
        }

    def test_minutes_of_no_receipt_are_found(self, client: Client) -> None:
        (flush,) = folded(mixed_log(synthetic(20, seed=3), OTHER_LOG), 1_000)
        flush.receipts.clear()
        write_results(client, flush)
        check, where, words = only_finding(client)
        assert (check, where) == ("orphan_minutes", f"{LOG.topic_id}[1] segment 0")
        assert words == f"minutes with {len(flush.ledger)} events belong to no receipt"

    def test_records_that_retention_deleted_before_they_were_folded_are_a_hole(
        self, store: ClickHouseSettings, log: Log
    ) -> None:
        fold = new_fold()
        fold.add(log.batch(0, 10))
        empty = RecordBatch(LOG.topic, 0, 10, 25, log.end, [], [], [], [], [], truncated=True)
        fold.add(empty)
        fold.add(log.batch(25, 30))
        with migrated(store) as client:
            write(client, [fold.take()])
            check, where, words = only_finding(client)
            assert (check, where) == ("hole", "usage.events[0] offsets 0 to 10")
            assert "offsets 10 to 25 were never folded" in words

    def test_a_log_cut_off_between_two_workers_is_a_hole(self, client: Client, log: Log) -> None:
        point = resume(client, LOG, log.end + 5, RULES)
        assert audit(client).findings == []
        later = mixed_log(synthetic(400, seed=4))
        while later.end < point.start + 10:
            later.values.append(b"")
            later.timestamps.append(later.timestamps[-1])
        fold = new_fold(LOG, point=point)
        fold.add(later.batch(point.start, point.start + 10))
        write(client, [fold.take()])
        check, where, words = only_finding(client)
        assert (check, where) == ("hole", f"usage.events[0] offsets {4 * SIZE} to {log.end}")
        assert f"offsets {log.end} to {log.end + 5}" in words

    def test_segments_that_overlap_are_found(self, store: ClickHouseSettings) -> None:
        log = mixed_log(synthetic(30))
        # The last record holds no accepted event, so that nothing but the overlap is wrong.
        log.spoil(log.accepted[0], Reason.NOT_JSON)
        (flush,) = folded(log, 1_000)
        whole = flush.receipts[-1]
        second = replace(whole, segment=log.end - 1, records=1, events=1, accepted=0, duplicates=0, event_hash_sum=0)
        second = replace(second, rejected={Reason.NOT_JSON: 1})
        closed = replace(whole, closed=True)
        with migrated(store) as client:
            write(client, [replace(flush, receipts=[*flush.receipts[:-1], closed])])
            write_receipts(client, [second])
            check, where, words = only_finding(client)
            assert (check, where) == ("overlap", f"usage.events[0] offsets {whole.segment} to {log.end}")
            assert words == f"the next starts at {log.end - 1}"

    def test_an_open_segment_that_another_one_follows_is_found(self, store: ClickHouseSettings, log: Log) -> None:
        flushes = [
            replace(
                flush,
                receipts=[replace(item, closed=item.closed and item.segment != SIZE) for item in flush.receipts],
            )
            for flush in folded(log)
        ]
        with migrated(store) as client:
            write(client, flushes)
            assert only_finding(client) == ("not_closed", SECOND, "another segment follows this open one")

    def test_what_is_being_written_during_the_audit_is_in_flight_and_no_finding(
        self, store: ClickHouseSettings, log: Log
    ) -> None:
        *flushes, last = folded(log, 10)
        with migrated(store) as client:
            write(client, flushes)
            before = audit(client)
            write_results(client, Flush(ledger_parts=last.ledger_parts, minute_parts=last.minute_parts))
            report = audit(client)
        assert (report.in_flight, report.findings) == (1, [])
        assert (report.accepted, report.ledger, report.minutes) == (before.accepted, before.ledger, before.minutes)

    def test_the_same_event_in_two_partitions_is_a_repeat_and_no_finding(self, client: Client, log: Log) -> None:
        before = audit(client)
        other = Log(OTHER_LOG)
        new = synthetic(10, seed=5)
        other.add(new)
        other.add(log.accepted[:4])
        write(client, folded(other))
        report = audit(client)
        assert report.findings == []
        assert (before.repeats, report.repeats) == (0, 4)
        assert report.accepted == before.accepted + 14
        assert report.ledger == before.ledger + 10
        assert report.minutes == report.accepted
        assert rows(client, "SELECT count() FROM events") == [(before.accepted + 10,)]

    def test_the_same_event_far_apart_in_one_partition_is_a_repeat(self, store: ClickHouseSettings) -> None:
        log = mixed_log(synthetic(600))
        again = log.accepted[:3]
        assert log.end > 4 * SIZE
        log.add(again)
        with migrated(store) as client:
            write(client, folded(log))
            report = audit(client)
        assert (report.repeats, report.findings) == (3, [])
        assert (report.accepted, report.ledger) == (len(log.accepted), len(log.accepted) - 3)

    def test_a_lost_event_is_found_beside_a_repeat(self, client: Client, log: Log) -> None:
        other = Log(OTHER_LOG)
        new = synthetic(10, seed=5)
        other.add([*log.accepted[:4], *new])
        write(client, folded(other))
        spoil_row(client, "ledger", "DELETE", f"event_id = '{new[0]['id']}'")
        check, where, words = only_finding(client)
        assert (check, where) == ("ledger", "usage.events[1] offsets 0 to 1")
        assert words == "14 accepted, 1 of them are not in the ledger at all"
        assert audit(client).repeats == 4

    def test_segments_with_repeats_are_looked_up_together(self, client: Client, log: Log) -> None:
        """One reading of the ledger a segment would take days on a year of events."""
        again = Log(OTHER_LOG)
        for place in range(4 * SIZE):
            again.add([log.accepted[place]])
        write(client, folded(again))
        counting = Counting(client)
        report = audit(counting)
        assert (report.findings, report.repeats) == ([], 4 * SIZE)
        assert client.query("SELECT count() AS n FROM receipts FINAL WHERE partition = 1").one()[0] >= 4
        # Of two copies at one offset either may stay, so that both partitions have repeats.
        assert 1 <= len([sql for sql in counting.asked if "NOT IN" in sql]) <= 2

    def test_lost_events_are_told_segment_by_segment(self, client: Client, log: Log) -> None:
        spoil_row(client, "ledger", "DELETE", "1")
        report = audit(client)
        words = {(item.where, item.words) for item in report.findings if item.check == "ledger"}
        assert words == {
            (
                f"usage.events[0] offsets {segment} to {following}",
                f"{n} accepted, {n} of them are not in the ledger at all",
            )
            for segment, following, n in client.query("SELECT segment, next_offset, accepted FROM segments").rows
        }
        assert report.repeats == 0

    def test_runs_of_segments_are_of_one_partition_and_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(audit_module, "_EVENTS_AT_ONCE", 100)
        receipts = [
            {"topic_id": "t", "partition": partition, "segment": 10 * place, "accepted": 40}
            for partition in range(2)
            for place in range(6)
        ]
        short = {("t", 0, 0), ("t", 0, 10), ("t", 0, 40), ("t", 0, 50), ("t", 1, 0)}
        runs = list(audit_module._runs(receipts, short))
        assert [[(row["partition"], row["segment"]) for row in run] for run in runs] == [
            [(0, 0), (0, 10)],
            [(0, 40), (0, 50)],
            [(1, 0)],
        ]
