"""What the receipts say of the last events of a partition, for the limit of refusals."""

from dataclasses import replace

from msgspec import structs

from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.recent import recent_receipts
from sinks.clickhouse.writer import write_receipts
from tests.support.sink_suite.data import LOG, OTHER_LOG, RULES, folded, migrated, whole_segments, write

OTHER_RULES = structs.replace(RULES, max_age_days=RULES.max_age_days + 1)


class TestRecent:
    def test_without_receipts_there_is_nothing(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            assert recent_receipts(client, LOG, RULES, 100) == []

    def test_the_newest_come_until_they_account_for_the_events_oldest_first(self, store: ClickHouseSettings) -> None:
        log = whole_segments()
        (flush,) = folded(log, 10_000)
        written = {receipt.segment: receipt for receipt in flush.receipts}
        newest = sorted(written)[::-1]
        with migrated(store) as client:
            write(client, folded(log))
            for count in range(1, len(newest) + 1):
                expected = [written[segment] for segment in newest[:count]][::-1]
                events = sum(receipt.events for receipt in expected)
                found = recent_receipts(client, LOG, RULES, events)
                assert [(r.segment, r.events, r.rejected, r.closed, r.last_timestamp) for r in found] == [
                    (r.segment, r.events, r.rejected, r.closed, r.last_timestamp) for r in expected
                ]
                assert len(recent_receipts(client, LOG, RULES, events + 1)) == min(count + 1, len(newest))
            assert [receipt.closed for receipt in found] == [True] * 4 + [False]
            assert sum(receipt.rejected != {} for receipt in found) > 1
            assert recent_receipts(client, OTHER_LOG, RULES, 100) == []

    def test_only_an_unbroken_run_under_the_same_rules_counts(self, store: ClickHouseSettings) -> None:
        old, middle, new = folded(whole_segments(), 10_000)[0].receipts[:3]
        with migrated(store) as client:
            write_receipts(client, [old, replace(middle, rules=OTHER_RULES), new])
            assert [item.segment for item in recent_receipts(client, LOG, RULES, 10**9)] == [new.segment]
            assert recent_receipts(client, LOG, OTHER_RULES, 10**9) == []
