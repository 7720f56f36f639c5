-- The total so far of each (dimensions, minute, segment); a higher next_offset contains a lower one.
CREATE TABLE IF NOT EXISTS minutes
(
    agency LowCardinality(String) COMMENT 'Catalogue code of the agency',
    service LowCardinality(String) COMMENT 'Catalogue code of the service',
    minute DateTime('UTC') COMMENT 'Start of the minute, UTC' CODEC(Delta, ZSTD(1)),
    channel LowCardinality(String) COMMENT 'Channel',
    outcome LowCardinality(String) COMMENT 'Outcome; empty for a stage',
    stage LowCardinality(String) COMMENT 'Stage of an application; empty for a use',
    topic_id LowCardinality(String) COMMENT 'Kafka topic id',
    partition UInt32 COMMENT 'Partition',
    segment UInt64 COMMENT 'Start offset of the segment' CODEC(Delta, ZSTD(1)),
    next_offset UInt64 COMMENT 'Offset after the last record folded into this total' CODEC(Delta, ZSTD(1)),
    events UInt64 COMMENT 'Uses, or stages entered',
    duration_ms_sum UInt64 COMMENT 'Sum of the durations in milliseconds',
    histogram Map(Int16, UInt64) COMMENT 'Durations: bucket to count; bucket i holds (g^(i-1), g^i] ms, g = 1.01/0.99; -1 holds 0',
    user_hashes Array(UInt64) EPHEMERAL COMMENT 'For inserting only: hashes of the distinct users',
    users AggregateFunction(uniqCombined64, UInt64) DEFAULT arrayReduce('uniqCombined64State', user_hashes) COMMENT 'State of distinct users'
)
ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(minute)
ORDER BY (agency, service, minute, channel, outcome, stage, topic_id, partition, segment)
COMMENT 'Totals so far of each minute within each segment; read it through the view usage';

CREATE VIEW IF NOT EXISTS usage AS
SELECT
    agency,
    service,
    minute,
    channel,
    outcome,
    events AS uses,
    duration_ms_sum,
    histogram,
    users
FROM minutes FINAL
WHERE stage = '';
