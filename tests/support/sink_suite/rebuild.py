"""Rebuilds from the ledger, which need no Kafka, and what keeps two of them apart."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from pipeline.errors import AuditError, StoreError
from pipeline.fold.flush import Flush
from pipeline.fold.rules import DIMENSIONS
from pipeline.runtime import rebuild as work_on
from pipeline.settings import ClickHouseSettings, FoldSettings, Settings
from sinks.clickhouse import rebuild_shadow as shadow
from sinks.clickhouse.audit import audit
from sinks.clickhouse.client import Client
from sinks.clickhouse.rebuild_check import new_findings
from sinks.clickhouse.rebuild_plan import Plan
from sinks.clickhouse.rebuild_state import Work, this_process, unfinished
from sinks.clickhouse.writer import write_openings, write_results, write_rows
from tests.support.sink_suite.data import START, folded, migrated, mixed_log, rows, synthetic, write

PERIOD = (START - timedelta(days=1), START + timedelta(days=1))
MINUTES = (
    "SELECT agency, service, toUnixTimestamp(minute), channel, outcome, stage, topic_id, partition, segment, events,"
    " duration_ms_sum, toString(mapSort(histogram)), finalizeAggregation(users) FROM minutes FINAL ORDER BY ALL"
)
CLOSED = "(SELECT max(next_offset) FROM receipts FINAL WHERE closed)"


@contextmanager
def filled(store: ClickHouseSettings) -> Iterator[Client]:
    """A database with several closed segments and an open one."""
    with migrated(store) as client:
        write(client, folded(mixed_log(synthetic(600))))
        assert rows(client, "SELECT count() > 3, countIf(NOT closed) FROM receipts FINAL") == [(True, 1)]
        yield client


def settings_of(store: ClickHouseSettings, *dimensions: str) -> Settings:
    fold = msgspec.convert({"dimensions": dimensions}, FoldSettings)
    return Settings(clickhouse=store, fold=fold)


def plan_of(client: Client, settings: Settings) -> Plan:
    return work_on.plan(client, settings, *PERIOD, "ledger", keep_old=False)


def rebuilt(client: Client, settings: Settings) -> work_on.Outcome:
    steps: list[str] = []
    work = work_on.begin(client, plan_of(client, settings))
    outcome = work_on.run(client, settings, work, lambda step, _: steps.append(step))
    assert steps[0] == "tables"
    assert steps[-1] == "drop"
    return outcome


def leftovers(client: Client) -> list[tuple[str, ...]]:
    kinds = "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '%rebuild%'"
    return [row for row in client.query(kinds).rows if row[0] not in ("rebuilds", "rebuild_segments")]


class TestRebuild:
    def test_minutes_made_from_the_ledger_are_the_same(self, store: ClickHouseSettings) -> None:
        with filled(store) as client:
            before = rows(client, MINUTES)
            outcome = rebuilt(client, settings_of(store))
            assert (outcome.state, outcome.from_log, outcome.differences) == ("done", 0, ())
            assert outcome.from_ledger == outcome.segments > 3
            assert rows(client, MINUTES) == before
            assert leftovers(client) == []
            assert unfinished(client) is None

    def test_damage_is_mended_and_told(self, store: ClickHouseSettings) -> None:
        with filled(store) as client:
            before = rows(client, MINUTES)
            client.execute("ALTER TABLE minutes DELETE WHERE segment < 41 AND stage = '' SETTINGS mutations_sync = 1")
            assert {item.check for item in audit(client).findings} == {"minutes"}
            outcome = rebuilt(client, settings_of(store))
            assert {item.table for item in outcome.differences} == {"minutes"}
            assert rows(client, MINUTES) == before
            assert audit(client).findings == []

    @pytest.mark.parametrize("dimension", DIMENSIONS)
    def test_a_further_dimension(self, store: ClickHouseSettings, dimension: str) -> None:
        with filled(store) as client:
            totals = "SELECT agency, minute, sum(uses), sum(duration_ms_sum) FROM usage GROUP BY ALL"
            before = Counter(rows(client, totals))
            outcome = rebuilt(client, settings_of(store, dimension))
            assert (outcome.dimensions, outcome.differences) == ((dimension,), ())
            assert Counter(rows(client, totals)) == before
            usage = (
                f"SELECT {dimension}, sum(events) FROM minutes FINAL WHERE stage = '' AND segment < {CLOSED} GROUP BY 1"
            )
            events = f"SELECT {dimension}, count() FROM ledger FINAL WHERE stage = '' AND offset < {CLOSED} GROUP BY 1"
            assert dict(rows(client, usage)) == dict(rows(client, events))
            assert len(rows(client, usage)) > 1
            assert audit(client).findings == []
            # And back.
            rebuilt(client, settings_of(store))
            assert rows(client, f"SELECT DISTINCT {dimension} FROM usage") == [("",)]
            assert Counter(rows(client, totals)) == before

    def test_what_a_worker_writes_meanwhile_is_there_afterwards(self, store: ClickHouseSettings) -> None:
        """The rest of the log comes between the copy and the exchange."""
        settings = settings_of(store)
        flushes = folded(mixed_log(synthetic(600)), step=20)
        with migrated(store) as client:
            write(client, flushes)
            whole = rows(client, MINUTES)
            for table in ("minutes", "ledger", "coordinates", "receipts"):
                client.execute(f"TRUNCATE TABLE {table}")
            write(client, flushes[: len(flushes) // 2])
            work = work_on.begin(client, plan_of(client, settings))

            def report(step: str, _: str) -> None:
                if step == "check":
                    write(client, flushes[len(flushes) // 2 :])

            work_on.run(client, settings, work, report)
            assert rows(client, MINUTES) == whole
            assert audit(client).findings == []

    def test_what_was_on_its_way_into_the_old_table_is_taken_over(self, store: ClickHouseSettings) -> None:
        """An insert that found the table before the exchange, and writes to it after."""
        settings = settings_of(store)
        *early, late = folded(mixed_log(synthetic(600)))
        with migrated(store) as client:
            write(client, [*early, late])
            whole = rows(client, MINUTES)
            for table in ("minutes", "ledger", "coordinates", "receipts"):
                client.execute(f"TRUNCATE TABLE {table}")
            write(client, early)
            work = work_on.begin(client, plan_of(client, settings))

            def report(step: str, _: str) -> None:
                if step == "catch up":
                    write_openings(client, late)
                    write_rows(client, Flush(minute_parts=late.minute_parts), shadow.SUFFIX)

            work_on.run(client, settings, work, report)
            write_results(client, Flush(ledger_parts=late.ledger_parts, receipts=late.receipts))
            assert rows(client, MINUTES) == whole
            assert audit(client).findings == []

    def test_a_loss_in_the_ledger_is_not_exchanged(self, store: ClickHouseSettings) -> None:
        with filled(store) as client:
            client.execute("ALTER TABLE ledger DELETE WHERE offset = 3 SETTINGS mutations_sync = 1")
            before = rows(client, MINUTES)
            work = work_on.begin(client, plan_of(client, settings_of(store)))
            with pytest.raises(AuditError, match=r"offsets 0 to \d+: receipt says .* nothing was exchanged"):
                work_on.run(client, settings_of(store), work, lambda *_: None)
            assert rows(client, MINUTES) == before
            assert leftovers(client) == []

    def test_a_shadow_that_lost_rows_is_not_exchanged(self, store: ClickHouseSettings) -> None:
        settings = settings_of(store)
        with filled(store) as client:
            before = rows(client, MINUTES)
            work = work_on.begin(client, plan_of(client, settings))

            def report(step: str, _: str) -> None:
                if step == "check":
                    lost = "ALTER TABLE minutes_rebuild DELETE WHERE segment = 0 AND channel = 'web'"
                    client.execute(lost + " SETTINGS mutations_sync = 1")

            with pytest.raises(AuditError, match=r"offsets 0 to 40: .* the minutes add up to .* nothing was exchanged"):
                work_on.run(client, settings, work, report)
            assert rows(client, MINUTES) == before
            assert leftovers(client) == []

    def test_the_audit_judges_the_shadows(self, store: ClickHouseSettings) -> None:
        with filled(store) as client:
            plan = plan_of(client, settings_of(store))
            shadow.create(client, plan)
            shadow.copy(client, plan, "minutes")
            closed = rows(client, "SELECT count() FROM receipts FINAL WHERE closed AND accepted > 0")[0][0]
            assert [item.check for item in new_findings(client, plan)] == ["minutes"] * closed
            shadow.drop(client)
            assert leftovers(client) == []

    @pytest.mark.parametrize("keep_old", [False, True])
    def test_one_that_ended_while_it_dropped_the_old_tables_is_finished(
        self, store: ClickHouseSettings, keep_old: bool
    ) -> None:
        settings = settings_of(store)
        with filled(store) as client:
            before = rows(client, MINUTES)
            plan = msgspec.structs.replace(plan_of(client, settings), keep_old=keep_old)
            work = work_on.begin(client, plan)

            def report(step: str, _: str) -> None:
                if step == "drop":
                    if keep_old:
                        shadow.keep(client, plan)
                    shadow.drop(client)
                    raise InterruptedError

            with pytest.raises(InterruptedError):
                work_on.run(client, settings, work, report)
            found = unfinished(client)
            assert found is not None
            outcome = work_on.run(client, settings, Work.take_over(client, found), lambda *_: None)
            assert outcome.state == "done"
            assert rows(client, MINUTES) == before
            assert leftovers(client) == ([("minutes_before_rebuild",)] if keep_old else [])
            assert unfinished(client) is None

    def test_of_two_only_one_gets_the_claim(self, store: ClickHouseSettings) -> None:
        with filled(store) as client:
            plan = plan_of(client, settings_of(store))
            work = Work.claim(client, "first", plan)
            with pytest.raises(StoreError, match="has just begun"):
                Work.claim(client, "second", plan)
            found = unfinished(client)
            assert found is not None
            assert (found.id, found.owner, found.owner_lives, found.plan) == ("first", this_process(), True, plan)
            with pytest.raises(StoreError, match="is being worked on"):
                work_on.abandon(client, found)
            work.update(owner=this_process().rpartition(":")[0] + ":999999999")
            found = unfinished(client)
            assert found is not None
            assert not found.owner_lives
            Work.take_over(client, found)
            with pytest.raises(StoreError, match="now worked on by"):
                work.confirm()

    def test_one_of_another_host_is_alive_as_long_as_it_gives_signs(self, store: ClickHouseSettings) -> None:
        with filled(store) as client:
            work = Work.claim(client, "there", plan_of(client, settings_of(store)))
            work.update(owner="elsewhere:1")
            found = unfinished(client)
            assert found is not None
            assert found.owner_lives
            silent = msgspec.structs.replace(found, silent_seconds=61.0)
            assert not silent.owner_lives

    def test_nothing_to_do_is_said(self, store: ClickHouseSettings) -> None:
        with filled(store) as client:
            long_ago = datetime(2001, 1, 1, tzinfo=UTC)
            plan = work_on.plan(client, settings_of(store), long_ago, long_ago + timedelta(days=1), "ledger", False)
            assert work_on.planned(client, plan).state == "nothing to do"
