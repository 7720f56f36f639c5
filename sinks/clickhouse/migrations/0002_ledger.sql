-- Every accepted event once. The key is the identity of an event for its agency, service and time; of two copies that
-- stood far apart in the log the earlier one stays (version = bitNot(offset)).
CREATE TABLE IF NOT EXISTS ledger
(
    agency LowCardinality(String) COMMENT 'Catalogue code of the agency',
    service LowCardinality(String) COMMENT 'Catalogue code of the service',
    time_ms Int64 EPHEMERAL COMMENT 'For inserting only: time in Unix milliseconds',
    time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(time_ms, 'UTC') COMMENT 'When it happened, as the agency said' CODEC(Delta, ZSTD(1)),
    event_hash UInt64 COMMENT 'XXH3-64 of source, NUL and id: the identity of the event',
    event_id String COMMENT 'CloudEvents id' CODEC(ZSTD(1)),
    channel LowCardinality(String) COMMENT 'web, mobile, centre, call_centre, kiosk or api; empty if a stage came without',
    outcome LowCardinality(String) COMMENT 'success, not_eligible, failure or abandoned; empty for a stage',
    stage LowCardinality(String) COMMENT 'received, processed or responded; empty for a use',
    duration_ms UInt32 COMMENT 'Milliseconds from request to answer; 0 for a stage' CODEC(T64, ZSTD(1)),
    user_hash UInt64 COMMENT 'XXH3-64 of the pseudonym; 0 if none was sent',
    application String COMMENT 'Opaque number of the application, or empty' CODEC(ZSTD(1)),
    centre LowCardinality(String) COMMENT 'Service centre, or empty',
    district LowCardinality(String) COMMENT 'District, or empty',
    hosting LowCardinality(String) COMMENT 'government_cloud, own, or empty',
    sign_in LowCardinality(String) COMMENT 'Sign-in or signature method, or empty',
    consumer LowCardinality(String) COMMENT 'Calling system, or empty',
    initiator LowCardinality(String) COMMENT 'citizen, state, or empty',
    rating UInt8 COMMENT 'Satisfaction 1 to 5; 0 if none was given',
    topic_id LowCardinality(String) COMMENT 'Kafka topic id of the log that holds the event',
    partition UInt32 COMMENT 'Partition of the log',
    offset UInt64 COMMENT 'Offset of the message in the partition' CODEC(Delta, ZSTD(1)),
    batch_index UInt32 COMMENT 'Place of the event in its message, from 0' CODEC(T64, ZSTD(1)),
    version UInt64 DEFAULT bitNot(offset) COMMENT 'The copy with the lowest offset stays' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(time)
ORDER BY (agency, service, time, event_hash)
COMMENT 'Accepted events; read it through the view events';

-- Where in the log each accepted event stood. It proves the ledger (a row missing there must stand here as a repeat)
-- and gives the fold its memory back after a restart.
CREATE TABLE IF NOT EXISTS coordinates
(
    topic_id LowCardinality(String) COMMENT 'Kafka topic id',
    partition UInt32 COMMENT 'Partition',
    offset UInt64 COMMENT 'Offset of the message' CODEC(Delta, ZSTD(1)),
    batch_index UInt32 COMMENT 'Place of the event in its message, from 0' CODEC(T64, ZSTD(1)),
    event_hash UInt64 COMMENT 'Identity of the event, as in the ledger'
)
ENGINE = ReplacingMergeTree
ORDER BY (topic_id, partition, offset, batch_index)
COMMENT 'Places in the log of the accepted events';

CREATE VIEW IF NOT EXISTS events AS
SELECT * EXCEPT version
FROM ledger FINAL;
