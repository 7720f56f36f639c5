-- The history of the catalogue: what was said on the topic of catalogue changes. Said again of the same day, it replaces
-- what was said before; with void, it takes it back. The log decides the order: see pipeline/catalogue/changes.py.
CREATE TABLE IF NOT EXISTS catalogue_changes
(
    agency LowCardinality(String) COMMENT 'Catalogue code of the agency',
    service LowCardinality(String) COMMENT 'Catalogue code of the service; empty if the agency itself is meant',
    change LowCardinality(String) COMMENT 'registered, renamed, digitised, moved, promised, merged or withdrawn',
    valid_from_day UInt16 EPHEMERAL COMMENT 'For inserting only: days since 1970-01-01',
    valid_from Date DEFAULT toDate(valid_from_day) COMMENT 'First day on which it is so, in the time zone of the statistics',
    void UInt8 COMMENT '1 takes back what was said of this day before',
    name_az String COMMENT 'Name in Azerbaijani; of registered and renamed',
    name_en String COMMENT 'Name in English',
    name_ru String COMMENT 'Name in Russian',
    hosting LowCardinality(String) COMMENT 'government_cloud or own; of moved',
    days UInt16 COMMENT 'Promised calendar days from an application to its answer, or 0; of promised',
    p95_ms UInt32 COMMENT 'Promised 95th percentile of the duration in milliseconds, or 0; of promised',
    success_millionths UInt32 EPHEMERAL COMMENT 'For inserting only: success_share in millionths',
    success_share Float64 DEFAULT success_millionths / 1000000 COMMENT 'Promised share of uses that do not fail, or 0; of promised',
    into_agency LowCardinality(String) COMMENT 'What it went into; of merged',
    into_service LowCardinality(String) COMMENT 'What it went into; of merged, if it is a service',
    event_id String COMMENT 'id of the CloudEvent',
    source String COMMENT 'source of the CloudEvent: who said it',
    recorded_ms Int64 EPHEMERAL COMMENT 'For inserting only: recorded_at in Unix milliseconds',
    recorded_at DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(recorded_ms, 'UTC') COMMENT 'Time stamp of the message',
    topic_id LowCardinality(String) COMMENT 'Id that Kafka gave the topic',
    offset UInt64 COMMENT 'Offset of the message'
)
ENGINE = ReplacingMergeTree(offset)
ORDER BY (agency, service, change, valid_from, topic_id)
COMMENT 'Changes of the catalogue as they were said; read them through catalogue_history and catalogue_at';

CREATE OR REPLACE VIEW catalogue_history AS
SELECT
    agency,
    service,
    valid_from,
    change,
    -- The order in which the changes of one day take effect.
    indexOf(['registered', 'renamed', 'digitised', 'moved', 'promised', 'merged', 'withdrawn'], change) AS rank,
    name_az,
    name_en,
    name_ru,
    hosting,
    days,
    p95_ms,
    success_share,
    into_agency,
    into_service,
    source,
    recorded_at
FROM
(
    -- Of a topic that was made anew the same may have been said on both.
    SELECT * FROM catalogue_changes FINAL
    ORDER BY recorded_at DESC, offset DESC
    LIMIT 1 BY agency, service, change, valid_from
)
WHERE void = 0;

CREATE OR REPLACE VIEW catalogue_at AS
SELECT
    agency,
    service,
    name_az,
    name_en,
    name_ru,
    status,
    since,
    digitised,
    hosting,
    days,
    p95_ms,
    success_share,
    into_agency,
    into_service,
    service != '' AND status = 'registered' AND maxIf(status, service = '') OVER (PARTITION BY agency) = 'registered'
        AS offered
FROM
(
    SELECT
        agency,
        service,
        argMaxIf(history.name_az, (valid_from, rank), change IN ('registered', 'renamed')) AS name_az,
        argMaxIf(history.name_en, (valid_from, rank), change IN ('registered', 'renamed')) AS name_en,
        argMaxIf(history.name_ru, (valid_from, rank), change IN ('registered', 'renamed')) AS name_ru,
        argMaxIf(change, (valid_from, rank), change IN ('registered', 'merged', 'withdrawn')) AS status,
        maxIf(valid_from, change IN ('registered', 'merged', 'withdrawn')) AS since,
        minOrNullIf(valid_from, change = 'digitised') AS digitised,
        argMaxIf(history.hosting, valid_from, change = 'moved') AS hosting,
        argMaxIf(history.days, valid_from, change = 'promised') AS days,
        argMaxIf(history.p95_ms, valid_from, change = 'promised') AS p95_ms,
        argMaxIf(history.success_share, valid_from, change = 'promised') AS success_share,
        argMaxIf(history.into_agency, valid_from, change = 'merged') AS into_agency,
        argMaxIf(history.into_service, valid_from, change = 'merged') AS into_service
    FROM catalogue_history AS history
    WHERE valid_from <= {at:Date}
    GROUP BY agency, service
);

CREATE OR REPLACE VIEW coverage_at AS
SELECT
    agency,
    maxIf(name_az, service = '') AS name_az,
    maxIf(name_en, service = '') AS name_en,
    maxIf(name_ru, service = '') AS name_ru,
    countIf(offered) AS services_registered,
    countIf(offered AND digitised IS NOT NULL) AS services_digitised,
    if(services_registered = 0, NULL, services_digitised / services_registered) AS coverage
FROM catalogue_at(at = {at:Date})
GROUP BY agency
HAVING maxIf(status, service = '') = 'registered';
