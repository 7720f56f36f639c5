-- One row per segment: the authority on progress, written after everything it vouches for.
CREATE TABLE IF NOT EXISTS receipts
(
    topic LowCardinality(String) COMMENT 'Kafka topic',
    topic_id LowCardinality(String) COMMENT 'Kafka topic id',
    partition UInt32 COMMENT 'Partition',
    segment UInt64 COMMENT 'Start offset of the segment',
    next_offset UInt64 COMMENT 'Offset after the last record folded',
    closed Bool COMMENT 'Whether the segment has ended',
    records UInt64 COMMENT 'Messages folded',
    value_bytes UInt64 COMMENT 'Their values in bytes',
    events UInt64 COMMENT 'Events in them = accepted + duplicates + rejected',
    accepted UInt64 COMMENT 'Events counted',
    duplicates UInt64 COMMENT 'Events seen before, within the memory',
    rejected Map(String, UInt64) COMMENT 'Refused events by reason',
    event_hash_sum UInt64 COMMENT 'Sum of event_hash of the accepted events, modulo 2^64',
    first_timestamp Int64 COMMENT 'Time stamp of the first record, Unix milliseconds',
    last_timestamp Int64 COMMENT 'Time stamp of the last record, Unix milliseconds',
    rules String COMMENT 'Rules of the segment as JSON',
    catalogue_version UInt32 DEFAULT JSONExtractUInt(rules, 'catalogue_version') COMMENT 'Catalogue in force',
    version UInt64 COMMENT 'next_offset * 2, plus 1 if closed: the higher knows more',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'When this progress was written'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic_id, partition, segment)
COMMENT 'Progress and counts of each segment; read it through the view segments';

CREATE VIEW IF NOT EXISTS segments AS
SELECT * EXCEPT version, arraySum(mapValues(rejected)) AS rejected_total
FROM receipts FINAL;
