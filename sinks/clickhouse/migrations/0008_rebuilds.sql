-- What xidmet rebuild did and does: one row a rebuild, the newest version counts.
CREATE TABLE IF NOT EXISTS rebuilds
(
    id String COMMENT 'Name of the rebuild',
    state LowCardinality(String) COMMENT 'building, exchanging, done or abandoned',
    plan String COMMENT 'Period, runs of segments, sources and dimensions, as JSON',
    progress String COMMENT 'Steps done and identities of the shadow tables, as JSON',
    owner String COMMENT 'Host and process that works on it',
    words String COMMENT 'How it ended, for people',
    version UInt64 COMMENT 'Grows with each change',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'Last sign of life of the owner'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id
COMMENT 'Rebuilds and their state';

-- Which segments stand whole in the shadow tables, so that a rebuild that was killed goes on there.
CREATE TABLE IF NOT EXISTS rebuild_segments
(
    id String COMMENT 'Name of the rebuild',
    topic_id LowCardinality(String) COMMENT 'Kafka topic id',
    partition UInt32 COMMENT 'Partition',
    segment UInt64 COMMENT 'Start offset of the segment',
    source LowCardinality(String) COMMENT 'log or ledger: what its rows were made of',
    accepted UInt64 COMMENT 'Events counted'
)
ENGINE = ReplacingMergeTree
ORDER BY (id, topic_id, partition, segment)
COMMENT 'Segments that a rebuild has made';
