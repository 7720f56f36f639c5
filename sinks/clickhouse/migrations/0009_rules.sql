-- The rules that markers may ask for: those of every worker that ever ran. Anybody who may write to the events topic can
-- write a marker; it must not bring rules of its own.
CREATE TABLE IF NOT EXISTS rules
(
    rules String COMMENT 'Rules of a worker as JSON, as in its markers',
    stored_at DateTime('UTC') DEFAULT now('UTC') COMMENT 'When a worker first had them'
)
ENGINE = ReplacingMergeTree
ORDER BY rules
COMMENT 'Rules of all workers; markers in the log ask for one of them';

-- What the first segment of a partition inherits, since no segment is before it. The earliest row of a partition holds.
CREATE TABLE IF NOT EXISTS beginnings
(
    topic_id LowCardinality(String) COMMENT 'Kafka topic id',
    partition UInt32 COMMENT 'Partition',
    rules String COMMENT 'Rules of the worker that wrote the row, as JSON',
    at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'When it was written, by the clock of ClickHouse'
)
ENGINE = ReplacingMergeTree
ORDER BY (topic_id, partition, at, rules)
COMMENT 'Rules of the first segment of each partition';

ALTER TABLE receipts
    ADD COLUMN IF NOT EXISTS next_rules String COMMENT 'Rules that the next segment inherits, if a marker named others' AFTER rules;
