-- Hours and days. A row is the total of a group in its period as of the moment when it was recomputed, and replaces the
-- one before; nothing is added to it. The version says how much was read for it: see sinks/clickhouse/periods.py.
CREATE TABLE IF NOT EXISTS hours
(
    hour DateTime('UTC') COMMENT 'Start of the hour, UTC' CODEC(Delta, ZSTD(1)),
    agency LowCardinality(String) COMMENT 'Catalogue code of the agency',
    service LowCardinality(String) COMMENT 'Catalogue code of the service',
    channel LowCardinality(String) COMMENT 'Channel',
    outcome LowCardinality(String) COMMENT 'Outcome; empty for a stage',
    stage LowCardinality(String) COMMENT 'Stage of an application; empty for a use',
    events UInt64 COMMENT 'Uses, or stages entered; 0 for a group that is no longer there',
    duration_ms_sum UInt64 COMMENT 'Sum of the durations in milliseconds',
    histogram Map(Int16, UInt64) COMMENT 'Durations of uses: bucket to count, as in minutes',
    users AggregateFunction(uniqCombined64, UInt64) COMMENT 'State of distinct users',
    source LowCardinality(String) COMMENT 'minutes while the hour is open, ledger when it is closed',
    computed_at DateTime64(3, 'UTC') COMMENT 'When it was recomputed' CODEC(Delta, ZSTD(1)),
    version UInt128 COMMENT 'How much was read for it: epoch, closed, sum of the versions of all rows of the hour'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYear(hour)
ORDER BY (hour, agency, service, channel, outcome, stage)
COMMENT 'Totals of each hour; read it through the view hourly';

CREATE TABLE IF NOT EXISTS days
(
    zone LowCardinality(String) COMMENT 'Time zone that the day is cut in',
    day Date COMMENT 'Day in that zone' CODEC(Delta, ZSTD(1)),
    agency LowCardinality(String) COMMENT 'Catalogue code of the agency',
    service LowCardinality(String) COMMENT 'Catalogue code of the service',
    channel LowCardinality(String) COMMENT 'Channel',
    outcome LowCardinality(String) COMMENT 'Outcome; empty for a stage',
    stage LowCardinality(String) COMMENT 'Stage of an application; empty for a use',
    events UInt64 COMMENT 'Uses, or stages entered; 0 for a group that is no longer there',
    duration_ms_sum UInt64 COMMENT 'Sum of the durations in milliseconds',
    histogram Map(Int16, UInt64) COMMENT 'Durations of uses: bucket to count, as in minutes',
    users AggregateFunction(uniqCombined64, UInt64) COMMENT 'State of distinct users',
    source LowCardinality(String) COMMENT 'minutes while the day is open, ledger when it is closed',
    computed_at DateTime64(3, 'UTC') COMMENT 'When it was recomputed' CODEC(Delta, ZSTD(1)),
    version UInt128 COMMENT 'How much was read for it: epoch, closed, sum of the versions of all rows of the day'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYear(day)
ORDER BY (zone, day, agency, service, channel, outcome, stage)
COMMENT 'Totals of each day; read it through the view daily';

-- Whoever takes rows out of minutes or ledger on purpose raises the epoch afterwards, so that what is recomputed from
-- fewer rows replaces what was computed from more. Empty means epoch 0.
CREATE TABLE IF NOT EXISTS epochs
(
    epoch UInt32 COMMENT 'Number, from 1',
    raiser String COMMENT 'Random name of the call that raised it, so that two never share a number',
    reason String COMMENT 'Why rows were taken out',
    at DateTime('UTC') DEFAULT now('UTC') COMMENT 'When'
)
ENGINE = MergeTree
ORDER BY epoch
COMMENT 'Rebuilds after which hours and days are computed anew';

-- Of two copies of an event the one with the lower offset stays, as before; at the same offset the log decides, no longer
-- the order of writing. 44 bits of the offset, from the highest down, then 19 bits of the log. Rows with the former
-- version, bitNot(offset), have the highest bit and stay what they are.
ALTER TABLE ledger
    MODIFY COLUMN version UInt64
    DEFAULT bitOr(
        bitShiftLeft(toUInt64(17592186044415 - least(offset, 17592186044415)), 19),
        bitAnd(cityHash64(topic_id) + partition, 524287))
    COMMENT 'The copy with the lowest offset stays, of equal ones one by topic id and partition';

CREATE VIEW IF NOT EXISTS hourly AS
SELECT
    agency,
    service,
    hour,
    channel,
    outcome,
    events AS uses,
    duration_ms_sum,
    histogram,
    users,
    source
FROM hours FINAL
WHERE stage = '' AND events > 0;

CREATE VIEW IF NOT EXISTS daily AS
SELECT
    agency,
    service,
    zone,
    day,
    channel,
    outcome,
    events AS uses,
    duration_ms_sum,
    histogram,
    users,
    source
FROM days FINAL
WHERE stage = '' AND events > 0;

CREATE VIEW IF NOT EXISTS weekly AS
SELECT
    agency,
    service,
    zone,
    toMonday(day) AS week,
    channel,
    outcome,
    sum(events) AS uses,
    sum(duration_ms_sum) AS duration_ms_sum,
    sumMap(histogram) AS histogram,
    uniqCombined64MergeState(users) AS users,
    countIf(source != 'ledger') = 0 AS closed
FROM days FINAL
WHERE stage = '' AND events > 0
GROUP BY agency, service, zone, week, channel, outcome;

CREATE VIEW IF NOT EXISTS monthly AS
SELECT
    agency,
    service,
    zone,
    toStartOfMonth(day) AS month,
    channel,
    outcome,
    sum(events) AS uses,
    sum(duration_ms_sum) AS duration_ms_sum,
    sumMap(histogram) AS histogram,
    uniqCombined64MergeState(users) AS users,
    countIf(source != 'ledger') = 0 AS closed
FROM days FINAL
WHERE stage = '' AND events > 0
GROUP BY agency, service, zone, month, channel, outcome;
