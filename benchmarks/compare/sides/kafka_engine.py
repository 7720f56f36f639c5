"""ClickHouse's Kafka engine with materialized views into the ledger's and the minutes' shape."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.compare.load import Truth
from benchmarks.compare.measuring import Course, Watch, follow
from benchmarks.compare.servers import BATCHES, SINGLE, Servers

SETTINGS: Final[dict[str, object]] = {
    "kafka_num_consumers": 2,
    # Each polls, parses, fills the views and inserts in a thread of its own; else one does all, one after the other.
    "kafka_thread_per_consumer": 1,
    # About the default. Larger ones cost the same; what becomes visible in few large steps has no rate to be measured.
    "kafka_max_block_size": 65_536,
    "kafka_poll_max_batch_size": 65_536,
    "kafka_flush_interval_ms": 1_000,
    "kafka_poll_timeout_ms": 200,
}

# A row of the raw table is a message of 100 events. Larger blocks cost a little less still, but take memory, and make
# visible in two or three steps what is to be measured.
_BLOCK_OF_BATCHES: Final = {"kafka_max_block_size": 2_621, "kafka_poll_max_batch_size": 2_621}

_DATA: Final = (
    "agency {code}, service {code}, channel {code}, outcome {code}, stage {code}, duration_ms Float64, user String,"
    " application String, centre {code}, district {code}, hosting {code}, sign_in {code}, consumer {code},"
    " initiator {code}, rating UInt8"
)
_PLAIN_DATA: Final = _DATA.format(code="String")
_CODED_DATA: Final = _DATA.format(code="LowCardinality(String)")
_EVENT: Final = f"Tuple(id String, source String, time String, data Tuple({_CODED_DATA}))"

_ENGINE: Final = """
ENGINE = Kafka
SETTINGS kafka_broker_list = '{bootstrap}', kafka_topic_list = '{topic}', kafka_group_name = '{group}',
    kafka_format = '{format}', {settings}
"""

# As the documentation has it: the engine parses. It puts the columns of each message together one by one, which with
# LowCardinality columns costs twice as much again, hence plain text here.
_DOCUMENTED_SOURCE: Final = (
    "CREATE TABLE source (id String, source String, time DateTime64(3, 'UTC'), data Tuple({data}))" + _ENGINE
)

# The engine hands on bytes only; a view parses a whole block at once, once for both views that read the result.
_RAW: Final = "CREATE TABLE raw (value String)" + _ENGINE
_PARSED: Final = (
    f"CREATE TABLE source (id String, source String, time DateTime64(3, 'UTC'), data Tuple({_CODED_DATA}),"
    " _topic LowCardinality(String), _partition UInt64, _offset UInt64) ENGINE = Null"
)
_PARSE: Final = """
CREATE MATERIALIZED VIEW parse TO source AS
SELECT
    event.id AS id, event.source AS source, parseDateTime64BestEffort(event.time, 3, 'UTC') AS time,
    event.data AS data, _topic, _partition, _offset
FROM (SELECT {events} AS event, _topic, _partition, _offset FROM raw)
"""
_ONE: Final = f"JSONExtract(value, '{_EVENT}')"
_MANY: Final = f"arrayJoin(JSONExtract(value, 'Array({_EVENT})'))"

# The columns of xidmet's ledger, its engine and its key.
_LEDGER: Final = """
CREATE TABLE ledger
(
    agency LowCardinality(String),
    service LowCardinality(String),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_hash UInt64,
    event_id String CODEC(ZSTD(1)),
    channel LowCardinality(String),
    outcome LowCardinality(String),
    stage LowCardinality(String),
    duration_ms UInt32 CODEC(T64, ZSTD(1)),
    user_hash UInt64,
    application String CODEC(ZSTD(1)),
    centre LowCardinality(String),
    district LowCardinality(String),
    hosting LowCardinality(String),
    sign_in LowCardinality(String),
    consumer LowCardinality(String),
    initiator LowCardinality(String),
    rating UInt8,
    topic_id LowCardinality(String),
    partition UInt32,
    offset UInt64 CODEC(Delta, ZSTD(1)),
    version UInt64 DEFAULT bitNot(offset) CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(time)
ORDER BY (agency, service, time, event_hash)
"""

_TO_LEDGER: Final = """
CREATE MATERIALIZED VIEW to_ledger TO ledger AS
SELECT
    data.agency AS agency, data.service AS service, time, xxh3(concat(source, '\\0', id)) AS event_hash,
    id AS event_id, data.channel AS channel, data.outcome AS outcome, data.stage AS stage,
    toUInt32(floor(data.duration_ms + 0.5)) AS duration_ms, if(empty(data.user), 0, xxh3(data.user)) AS user_hash,
    data.application AS application, data.centre AS centre, data.district AS district, data.hosting AS hosting,
    data.sign_in AS sign_in, data.consumer AS consumer, data.initiator AS initiator, data.rating AS rating,
    _topic AS topic_id, _partition AS partition, _offset AS offset
FROM source
"""

# The dimensions and measures of xidmet's minutes; totals add up by merging.
_MINUTES: Final = """
CREATE TABLE minutes
(
    agency LowCardinality(String),
    service LowCardinality(String),
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    channel LowCardinality(String),
    outcome LowCardinality(String),
    stage LowCardinality(String),
    events SimpleAggregateFunction(sum, UInt64),
    duration_ms_sum SimpleAggregateFunction(sum, UInt64),
    histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)),
    users AggregateFunction(uniqCombined64, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (agency, service, minute, channel, outcome, stage)
"""

# Log-spaced buckets of the same base; a bucket by logarithm is the cheapest way.
_TO_MINUTES: Final = """
CREATE MATERIALIZED VIEW to_minutes TO minutes AS
SELECT
    data.agency AS agency, data.service AS service, toStartOfMinute(time) AS minute, data.channel AS channel,
    data.outcome AS outcome, data.stage AS stage, count() AS events,
    sum(toUInt64(floor(data.duration_ms + 0.5))) AS duration_ms_sum,
    sumMapIf(map(
        toInt16(if(data.duration_ms < 0.5, -1, ceil(log(floor(data.duration_ms + 0.5)) / log(1.01 / 0.99)))),
        toUInt64(1)), stage = '') AS histogram,
    uniqCombined64StateIf(xxh3(data.user), notEmpty(data.user)) AS users
FROM source
GROUP BY agency, service, minute, channel, outcome, stage
"""


@dataclass(frozen=True, slots=True)
class KafkaEngine:
    """One topic into two tables, by ClickHouse alone.

    ``before`` are the statements that make the table ``source``, which both views read; ``after`` starts the reading.
    ``{bootstrap}``, ``{topic}`` and ``{group}`` in them are filled in.
    """

    name: str
    topic: str
    settings: Mapping[str, object]
    before: Sequence[str]
    after: Sequence[str]

    def run(self, servers: Servers, limit_seconds: float) -> Course:
        """One round.

        Raises:
            RuntimeError: the totals are wrong.
            TimeoutError: it was too slow.
        """
        database = servers.fresh_database()
        values = {"bootstrap": servers.kafka.bootstrap, "topic": self.topic, "group": database}
        try:
            with servers.client(database) as client:
                for statement in (_LEDGER, _MINUTES, *(text.format(**values) for text in self.before)):
                    client.execute(statement)
                watch = Watch({"broker": [servers.kafka.pid], "clickhouse": [servers.clickhouse.pid]})
                for statement in self.after:
                    client.execute(statement)
                expected = servers.truth.events
                course = follow(watch, list, lambda: visible(client, expected), expected, limit_seconds)
                check(client, servers.truth)
                return course
        finally:
            servers.drop_database(database)


def single() -> KafkaEngine:
    """One event a message, in the cheapest way that was found."""
    return _parsing_in_a_view("kafka_engine_single", SINGLE, _ONE)


def batches() -> KafkaEngine:
    """Batches of 100, in the cheapest way that was found."""
    return _parsing_in_a_view("kafka_engine_batches", BATCHES, _MANY, _BLOCK_OF_BATCHES)


def documented() -> KafkaEngine:
    """One event a message, parsed by the engine."""
    return _parsing_itself("kafka_engine_documented", SINGLE, _PLAIN_DATA)


def others() -> dict[str, KafkaEngine]:
    """What was tried besides, by what is different in it."""
    tried = {
        "JSONEachRow, LowCardinality columns": _parsing_itself("kafka_engine_coded", SINGLE, _CODED_DATA),
        "JSONEachRow, batches of 100": _parsing_itself("kafka_engine_documented_batches", BATCHES, _PLAIN_DATA),
        "batches of 100, blocks of 656 messages": _parsing_in_a_view(
            "kafka_engine_batches_small", BATCHES, _MANY, {"kafka_max_block_size": 656}
        ),
        "batches of 100, blocks of 6,554 messages": _parsing_in_a_view(
            "kafka_engine_batches_large", BATCHES, _MANY, {"kafka_max_block_size": 6_554}
        ),
    }
    for name, value in (
        ("kafka_max_block_size", 262_144),
        ("kafka_max_block_size", 1_048_576),
        ("kafka_thread_per_consumer", 0),
        ("kafka_flush_interval_ms", 7_500),
    ):
        words = f"{name}={value}"
        tried[words] = _parsing_in_a_view(f"kafka_engine_{name[6:]}_{value}", SINGLE, _ONE, {name: value})
    return tried


def _parsing_itself(name: str, topic: str, data: str) -> KafkaEngine:
    settings = SETTINGS | {"date_time_input_format": "'best_effort'"}
    source = _with(_DOCUMENTED_SOURCE, "JSONEachRow", settings).replace("{data}", data)
    # Both views at the end: the first one starts the consumers, and what they read before the second is there goes to
    # the first alone. They take seconds to join their group; the check of the totals would find it.
    return KafkaEngine(name, topic, settings, [source], [_TO_MINUTES, _TO_LEDGER])


def _parsing_in_a_view(name: str, topic: str, events: str, changed: Mapping[str, object] | None = None) -> KafkaEngine:
    chosen = SETTINGS | dict(changed or {})
    raw = _with(_RAW, "RawBLOB", chosen)
    before = [raw, _PARSED, _TO_MINUTES, _TO_LEDGER]
    settings = chosen | {"kafka_format": "RawBLOB", "parsed by": events.partition("'")[0] + "...)"}
    return KafkaEngine(name, topic, settings, before, [_PARSE.replace("{events}", events)])


def _with(statement: str, form: str, settings: Mapping[str, object]) -> str:
    chosen = ", ".join(f"{name} = {value}" for name, value in settings.items())
    return statement.replace("{format}", form).replace("{settings}", chosen)


def visible(client: Any, expected: int) -> tuple[float, int]:
    """What both tables show: the ledger's count, and at the end the minutes' as well."""
    (count,) = client.execute("SELECT count() FROM ledger")[0]
    if count >= expected:
        count = min(count, client.execute("SELECT sum(events) FROM minutes")[0][0])
    return time.time(), int(count)


def check(client: Any, truth: Truth) -> None:
    """Compare both tables with what was written.

    Raises:
        RuntimeError: they differ.
    """
    for what, sql in (
        ("ledger rows", "SELECT agency, service, count() FROM ledger FINAL GROUP BY agency, service"),
        ("minute rows", "SELECT agency, service, sum(events) FROM minutes GROUP BY agency, service"),
    ):
        found = {f"{agency}/{service}": count for agency, service, count in client.execute(sql)}
        if found != truth.services:
            raise RuntimeError(f"{what} hold {sum(found.values()):,} events instead of {truth.events:,}")
