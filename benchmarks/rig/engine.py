"""ClickHouse's own Kafka engine, reading the same topic into tables of the same shape."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.rig.stage import Stage
from tests.support.pipeline_run import PipelineRun

CONSUMERS = 2
_TEXTS = ("stage", "application", "centre", "district", "hosting", "sign_in", "consumer", "initiator")

_STATEMENTS = (
    """
    CREATE TABLE {database}.queue
    (
        id String, source String, type String, time String,
        data Tuple(
            agency String, service String, channel String, outcome String, stage String, duration_ms Float64,
            user String, application String, centre String, district String, hosting String, sign_in String,
            consumer String, initiator String, rating UInt8)
    )
    ENGINE = Kafka('{bootstrap}', '{topic}', '{group}', 'JSONEachRow')
    SETTINGS kafka_num_consumers = {consumers}, kafka_thread_per_consumer = 1
    """,
    """
    CREATE MATERIALIZED VIEW {database}.queue_to_ledger TO {database}.ledger AS
    SELECT
        data.agency AS agency, data.service AS service, parseDateTime64BestEffort(time, 3, 'UTC') AS time,
        xxh3(concat(source, '\\0', id)) AS event_hash, id AS event_id,
        data.channel AS channel, data.outcome AS outcome, {texts},
        toUInt32(data.duration_ms) AS duration_ms, xxh3(data.user) AS user_hash, data.rating AS rating,
        'engine' AS topic_id, toUInt32(_partition) AS partition, _offset AS offset, toUInt32(0) AS batch_index
    FROM {database}.queue
    """,
    """
    CREATE TABLE {database}.minutes_engine
    (
        agency LowCardinality(String), service LowCardinality(String), minute DateTime('UTC'),
        channel LowCardinality(String), outcome LowCardinality(String), stage LowCardinality(String),
        events SimpleAggregateFunction(sum, UInt64), duration_ms_sum SimpleAggregateFunction(sum, UInt64),
        histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)),
        users AggregateFunction(uniqCombined64, UInt64)
    )
    ENGINE = AggregatingMergeTree
    PARTITION BY toYYYYMM(minute)
    ORDER BY (agency, service, minute, channel, outcome, stage)
    """,
    """
    CREATE MATERIALIZED VIEW {database}.queue_to_minutes TO {database}.minutes_engine AS
    SELECT
        data.agency AS agency, data.service AS service,
        toStartOfMinute(parseDateTime64BestEffort(time, 3, 'UTC')) AS minute,
        data.channel AS channel, data.outcome AS outcome, data.stage AS stage,
        count() AS events, sum(toUInt64(data.duration_ms)) AS duration_ms_sum,
        sumMap(map(if(data.duration_ms < 0.5, -1, ceil(log(data.duration_ms) / log(1.01 / 0.99)))::Int16, 1::UInt64))
            AS histogram,
        uniqCombined64State(xxh3(data.user)) AS users
    FROM {database}.queue
    GROUP BY agency, service, minute, channel, outcome, stage
    """,
    """
    CREATE OR REPLACE VIEW {database}.usage AS
    SELECT agency, service, minute, channel, outcome, sum(events) AS uses
    FROM {database}.minutes_engine
    WHERE stage = ''
    GROUP BY agency, service, minute, channel, outcome
    """,
)


@contextmanager
def kafka_engine(stage: Stage, run: PipelineRun) -> Iterator[None]:
    """Read the topic of ``run`` into its ledger and into minutes of the engine, behind the same views."""
    settings = run.settings
    database = settings.clickhouse.url.rpartition("/")[2]
    names = {
        "database": database,
        "bootstrap": settings.kafka.bootstrap,
        "topic": settings.kafka.events_topic,
        "group": settings.kafka.group,
        "consumers": CONSUMERS,
        "texts": ", ".join(f"data.{name} AS {name}" for name in _TEXTS),
    }
    for statement in _STATEMENTS:
        stage.clickhouse.execute(statement.format(**names))
    try:
        yield
    finally:
        for name in ("queue_to_ledger", "queue_to_minutes", "queue"):
            stage.clickhouse.execute(f"DROP TABLE IF EXISTS {database}.{name} SYNC")
