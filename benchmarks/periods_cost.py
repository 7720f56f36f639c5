"""What it costs to keep hours and days up to date in chdb: seconds and rows read for each statement of the worker.

Decision 0012 rests on it. Some days of synthetic events fill ``ledger`` and, a segment a partition and hour,
``minutes``, in blocks of ten minutes as a worker inserts them. Then each statement is run a few times, the parts as
merged as ClickHouse left them.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from statistics import median
from typing import Any

START = 1_767_225_600  # 2026-01-01
ZONE = "Asia/Baku"
BLOCK_MINUTES = 10

_EVENTS = """
SELECT
    sipHash64(number) AS random,
    concat('agency-', toString(toUInt64(pow((random % 1000) / 1000, 4) * 41))) AS agency,
    concat('service-', toString(toUInt64(pow((random % 997) / 997, 2) * 10))) AS service,
    toInt64({start}) * 1000 + intDiv(toInt64(number - {first}) * {span_ms}, {count}) AS time_ms,
    sipHash64(random, 1) AS event_hash,
    toString(event_hash) AS event_id,
    ['web', 'web', 'web', 'mobile', 'api', 'centre'][random % 6 + 1] AS channel,
    if(random % 100 < 93, 'success', 'failure') AS outcome,
    toUInt32(exp(5.8 + (random % 10007) / 10007 * 2.5)) AS duration_ms,
    sipHash64(random % 120000, 2) AS user_hash,
    'topic' AS topic_id,
    toUInt32(number % 4) AS partition,
    intDiv(number, 100) AS offset,
    toUInt32(number % 100) AS batch_index
FROM numbers({first}, {count})
"""
_LEDGER = """INSERT INTO ledger (agency, service, time_ms, event_hash, event_id, channel, outcome, duration_ms,
user_hash, topic_id, partition, offset, batch_index) SELECT * EXCEPT random FROM ({events})"""
_MINUTES = """INSERT INTO minutes (agency, service, minute, channel, outcome, stage, topic_id, partition, segment,
next_offset, events, duration_ms_sum, histogram, users)
SELECT agency, service, toDateTime(intDiv(time_ms, 60000) * 60, 'UTC') AS minute, channel, outcome, '', topic_id,
    partition, intDiv(time_ms, 3600000) AS segment, max(offset) + 1, count(), sum(duration_ms),
    CAST(sumMap([{bucket}], [toUInt64(1)]), 'Map(Int16, UInt64)'), uniqCombined64State(user_hash)
FROM ({events}) GROUP BY agency, service, minute, channel, outcome, topic_id, partition, segment"""


def fill(session: Any, bucket: str, days: int, per_minute: int) -> None:
    """Insert the events, block by block."""
    count = per_minute * BLOCK_MINUTES
    for block in range(days * 1440 // BLOCK_MINUTES):
        events = _EVENTS.format(
            start=START + block * BLOCK_MINUTES * 60,
            span_ms=BLOCK_MINUTES * 60_000,
            first=block * count,
            count=count,
        )
        session.query(_LEDGER.format(events=events), "TSV")
        session.query(_MINUTES.format(events=events, bucket=bucket), "TSV")


def measure(days: int, per_minute: int, rounds: int) -> dict[str, Any]:
    """Medians by statement: seconds, rows read, groups."""
    from pipeline.settings import ClickHouseSettings
    from sinks.clickhouse.client import connect
    from sinks.clickhouse.embedded import EmbeddedClient
    from sinks.clickhouse.period_sql import CLOSED_BIT, HOURS, bucket_sql, days_of, insert_sql, weights_sql
    from sinks.clickhouse.schema import migrate

    day, closed = days_of(ZONE), 1 << CLOSED_BIT
    end = START + days * 86_400
    last_hour, last_day = end - 3_600, day.number(end - 86_400 / 2)
    statements = {
        "an open hour, from minutes": insert_sql(HOURS, "minutes", last_hour, last_hour, 0),
        "a closed hour, from the ledger": insert_sql(HOURS, "ledger", last_hour - 3_600, last_hour - 3_600, closed),
        "24 closed hours in one statement": insert_sql(HOURS, "ledger", last_hour - 86_400, last_hour - 3_600, closed),
        "an open day, from minutes": insert_sql(day, "minutes", last_day, last_day, 0),
        "a closed day, from the ledger": insert_sql(day, "ledger", last_day - 1, last_day - 1, closed),
        "sweep of two days, by hours": weights_sql(HOURS, "ledger", end - 2 * 86_400, end),
        "sweep of everything, by hours": weights_sql(HOURS, "ledger", START, end),
        "sweep of everything, by days": weights_sql(day, "ledger", day.number(START), day.number(end)),
    }
    with tempfile.TemporaryDirectory() as directory:
        settings = ClickHouseSettings(url=f"chdb:{directory}/clickhouse")
        migrate(settings)
        with closing(connect(settings)) as client:
            session: Any = EmbeddedClient._session
            print("filling ...", file=sys.stderr)
            fill(session, bucket_sql("duration_ms"), days, per_minute)
            sizes = {
                table: client.query(f"SELECT count() AS n FROM {table}").one()[0] for table in ("minutes", "ledger")
            }
            measured: dict[str, list[tuple[float, int]]] = {name: [] for name in statements}
            for _ in range(rounds):
                for name, sql in statements.items():
                    began = time.perf_counter()
                    answer = session.query(sql, "TSV")
                    measured[name].append((time.perf_counter() - began, int(answer.storage_rows_read())))
    return {
        "days": days,
        "events_per_minute": per_minute,
        "rounds": rounds,
        "rows": sizes,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "statements": {
            name: {
                "seconds": median(seconds for seconds, _ in figures),
                "lowest": min(seconds for seconds, _ in figures),
                "highest": max(seconds for seconds, _ in figures),
                "rows_read": median(rows for _, rows in figures),
            }
            for name, figures in measured.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=7, help="days of events (default 7)")
    parser.add_argument("--events-per-minute", type=int, default=200, help="events a minute (default 200)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median is taken (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args(arguments)
    if options.days < 3 or options.rounds < 1 or options.events_per_minute < 1:
        parser.error("at least 3 days, one round and one event a minute")
    content = measure(options.days, options.events_per_minute, options.rounds)
    if options.json:
        print(json.dumps(content))
        return 0
    print(f"{content['rows']['minutes']:,} rows of minutes, {content['rows']['ledger']:,} of the ledger, medians")
    print(f"{'':36} {'s':>8} {'lowest':>8} {'highest':>8} {'rows read':>12}")
    for name, item in content["statements"].items():
        seconds = " ".join(f"{item[what]:8.3f}" for what in ("seconds", "lowest", "highest"))
        print(f"{name:36} {seconds} {item['rows_read']:12,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
