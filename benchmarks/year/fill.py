"""The year written into ClickHouse by its own statements: events made of numbers by hashes, the same each time.

Event ``n`` stands in partition ``n % 4`` at offset ``n / 4``. A segment is an hour of a partition. One event in ten
thousand is a repeat of an earlier one of another partition, which the memory of a fold does not reach: two rows in the
coordinates and in the minutes, one in the ledger after merges. One minute in ten has been written twice, the first time
half, as a flush in the middle of it does.
"""

from collections.abc import Callable

from benchmarks.year.shape import (
    END,
    HOURS,
    PARTITIONS,
    REPEAT_AFTER,
    REPEAT_EVERY,
    STAGE_EVERY,
    START,
    ZONE,
    Chunk,
    catalogue,
    chunks,
    hour_of,
    hour_starts,
    popularity,
)
from pipeline.fold.rules import Rules
from pipeline.settings import FoldSettings
from sinks.clickhouse.catalogues import store_catalogue
from sinks.clickhouse.client import Client
from sinks.clickhouse.period_sql import HOURS as HOUR_KIND
from sinks.clickhouse.period_sql import bucket_sql, days_of
from sinks.clickhouse.periods import refresh

TOPIC = "usage.events"
TOPIC_ID = "year"
_SETTINGS = (
    " SETTINGS max_query_size = 16777216, max_ast_elements = 1000000, max_expanded_ast_elements = 1000000,"
    " async_insert = 0, insert_deduplicate = 0, max_partitions_per_insert_block = 0, max_insert_threads = 1,"
    " min_insert_block_size_rows = 3000000, min_insert_block_size_bytes = 1073741824, max_threads = 2"
)


def events_sql(chunk: Chunk, events: int) -> str:
    """A query for the events of a chunk, with the columns of the ledger and ``segment``."""
    edges = hour_starts(events)
    starts = edges[chunk.first_hour : chunk.last_hour]
    first, last = starts[0], edges[chunk.last_hour]
    if first == last:
        raise ValueError("too few events: an hour has none")
    sizes = [edges[hour + 1] - edges[hour] for hour in range(chunk.first_hour, chunk.last_hour)]
    hours = [round(hour_of(hour).timestamp()) for hour in range(chunk.first_hour, chunk.last_hour)]
    known = popularity()
    repeats = f"number % {REPEAT_EVERY} = {REPEAT_EVERY - 1} AND number >= {first + REPEAT_AFTER}"
    starts_sql = f"CAST({starts}, 'Array(UInt64)')"
    return f"""
SELECT
    agency, service, fromUnixTimestamp64Milli(time_ms, 'UTC') AS time, event_hash, event_id,
    channel, outcome, stage, duration_ms, user_hash, application, centre, district, hosting, sign_in, consumer,
    initiator, rating, topic_id, partition, offset, batch_index, segment
FROM (
SELECT
    number AS n,
    if({repeats}, toUInt64(number - {REPEAT_AFTER}), number) AS m,
    cityHash64(m, 1) AS random_1,
    cityHash64(m, 2) AS random_2,
    cityHash64(m, 3) AS random_3,
    m % {STAGE_EVERY} = 50 AS is_stage,
    intDiv(m, {STAGE_EVERY}) AS turn,
    turn % 3 AS stage_number,
    toUInt64(greatest(0, toInt64(turn) - [0, 601, 2102][stage_number + 1])) AS number_of_application,
    roundDown(toUInt32(if(is_stage, cityHash64(number_of_application, 4), random_1)), {known.starts}) AS slot,
    transform(slot, {known.starts}, {known.agencies}, '') AS agency,
    transform(slot, {known.starts}, {known.services}, '') AS service,
    roundDown(m, {starts_sql}) AS hour_start,
    toInt64(transform(hour_start, {starts_sql}, {hours}, 0)) * 1000
        + intDiv((m - hour_start) * 3600000 + random_2 % 3600000, transform(hour_start, {starts_sql}, {sizes}, 1))
        AS time_ms,
    cityHash64(m, 5) AS event_hash,
    hex(event_hash) AS event_id,
    random_2 % 100 AS draw,
    multiIf(is_stage, '', draw < 60, 'web', draw < 77, 'mobile', draw < 84, 'centre', draw < 86, 'call_centre',
        draw < 88, 'kiosk', 'api') AS channel,
    intDiv(random_2, 100) % 1000 AS outcome_draw,
    multiIf(is_stage, '', outcome_draw < 15 + slot % 8, 'failure', outcome_draw < 70, 'abandoned',
        outcome_draw < 95, 'not_eligible', 'success') AS outcome,
    if(is_stage, ['received', 'processed', 'responded'][stage_number + 1], '') AS stage,
    if(is_stage, 0, toUInt32(exp(5.0 + slot % 11 / 6 + (bitAnd(random_3, 65535) + bitAnd(bitShiftRight(random_3, 16),
        65535) + bitAnd(bitShiftRight(random_3, 32), 65535)) / 65536 * 1.3 - 1.0))) AS duration_ms,
    if(is_stage OR channel = 'api' OR random_3 % 100 < 10, 0,
        cityHash64(toUInt64(3000000 * pow(intDiv(random_1, 4294967296) / 4294967296, 2)), 6)) AS user_hash,
    if(is_stage, concat('A-', toString(number_of_application)), '') AS application,
    if(channel = 'centre', concat('centre-', toString(random_3 % 25 + 1)), '') AS centre,
    if(channel = 'centre', concat('district-', toString(random_3 % 25 * 2 + random_1 % 3 + 1)), '') AS district,
    if(is_stage, '', if(slot % 2 = 0, 'government_cloud', 'own')) AS hosting,
    if(channel IN ('web', 'mobile'), ['asan-imza', 'digital-login', 'e-signature', 'password'][random_3 % 4 + 1], '')
        AS sign_in,
    if(channel = 'api', concat('system-', toString(random_3 % 20 + 1)), '') AS consumer,
    if(is_stage, '', if(random_3 % 33 = 0, 'state', 'citizen')) AS initiator,
    if(NOT is_stage AND random_3 % 20 = 0, toUInt8(random_1 % 5 + 1), toUInt8(0)) AS rating,
    '{TOPIC_ID}' AS topic_id,
    toUInt32(n % {PARTITIONS}) AS partition,
    intDiv(n, {PARTITIONS}) AS offset,
    toUInt32(0) AS batch_index,
    intDiv(roundDown(n, {starts_sql}) + {PARTITIONS - 1} - partition, {PARTITIONS}) AS segment
FROM numbers({first}, {last - first})
)"""


_LEDGER = """agency, service, time, event_hash, event_id, channel, outcome, stage, duration_ms, user_hash, application,
centre, district, hosting, sign_in, consumer, initiator, rating, topic_id, partition, offset, batch_index"""
_PLACES = "topic_id, partition, offset, batch_index, event_hash"


def statements(chunk: Chunk, events: int) -> dict[str, str]:
    """The statements that fill a chunk, by table."""
    made = events_sql(chunk, events)
    minutes = (
        "INSERT INTO minutes (agency, service, minute, channel, outcome, stage, topic_id, partition, segment,"
        " next_offset, events, duration_ms_sum, histogram, users)"
        " SELECT agency, service, toStartOfMinute(toDateTime(time, 'UTC')) AS minute, channel, outcome, stage,"
        " topic_id, partition, segment, max(offset) + 1, count(), sum(duration_ms),"
        f" CAST(sumMapIf([{bucket_sql('duration_ms')}], [toUInt64(1)], stage = ''), 'Map(Int16, UInt64)'),"
        f" uniqCombined64StateIf(user_hash, user_hash != 0) FROM ({made})"
        "{where} GROUP BY agency, service, minute, channel, outcome, stage, topic_id, partition, segment"
    )
    rules = Rules.of(FoldSettings(), catalogue().version).to_json()
    return {
        "ledger": f"INSERT INTO ledger ({_LEDGER}) SELECT {_LEDGER} FROM ({made}){_SETTINGS}",
        "coordinates": f"INSERT INTO coordinates ({_PLACES}) SELECT {_PLACES} FROM ({made}){_SETTINGS}",
        "minutes, half": minutes.format(where=" WHERE toMinute(time) % 10 = 3 AND toSecond(time) < 30") + _SETTINGS,
        "minutes": minutes.format(where="") + _SETTINGS,
        "receipts": (
            "INSERT INTO receipts (topic, topic_id, partition, segment, next_offset, closed, records, value_bytes,"
            " events, accepted, duplicates, rejected, event_hash_sum, first_timestamp, last_timestamp, rules,"
            " version)"
            f" SELECT '{TOPIC}', topic_id, partition, segment, max(offset) + 1 AS following, true, count(),"
            " count() * 350, count(), count(), 0, CAST(map(), 'Map(String, UInt64)'), sum(event_hash),"
            " min(toUnixTimestamp64Milli(time)), max(toUnixTimestamp64Milli(time)),"
            f" '{rules}', following * 2 + 1 FROM ({made}) GROUP BY topic_id, partition, segment{_SETTINGS}"
        ),
    }


def fill(client: Client, events: int, progress: Callable[[str], None]) -> None:
    """Fill the empty tables with the whole year; ``progress`` is told each chunk before it is made.

    Raises:
        StoreError: ClickHouse refuses.
    """
    store_catalogue(client, catalogue())
    for chunk in chunks():
        progress(f"{hour_of(chunk.first_hour):%Y-%m-%d}: events")
        for statement in statements(chunk, events).values():
            client.execute(statement)
    _periods(client, progress)


def _periods(client: Client, progress: Callable[[str], None]) -> None:
    """Hours and days by the project's own statements; the last hour and day are still open."""
    last_hour = round(END.timestamp()) - 3600
    for first in range(0, HOURS - 1, 7 * 24):
        progress(f"{hour_of(first):%Y-%m-%d}: hours")
        start = round(hour_of(first).timestamp())
        refresh(client, HOUR_KIND, "ledger", start, min(start + (7 * 24 - 1) * 3600, last_hour - 3600))
    refresh(client, HOUR_KIND, "minutes", last_hour, last_hour)
    days = days_of(ZONE)
    first_day, last_day = days.number(START.timestamp()), days.number(END.timestamp() - 1)
    for first in range(first_day, last_day, 7):
        progress(f"{days.start(first):%Y-%m-%d}: days")
        refresh(client, days, "ledger", first, min(first + 6, last_day - 1))
    refresh(client, days, "minutes", last_day, last_day)
