-- Figures that others counted, and costs: see pipeline/figures/model.py. Said again, a figure replaces what was said before;
-- with void it is taken back. No view adds them to what the pipeline counted.
CREATE TABLE IF NOT EXISTS figures
(
    measure LowCardinality(String) COMMENT 'uses, people, completed or cost',
    start_day UInt16 EPHEMERAL COMMENT 'For inserting only: start in days since 1970-01-01',
    start Date DEFAULT toDate(start_day) COMMENT 'First day of the period',
    end_day UInt16 EPHEMERAL COMMENT 'For inserting only: end in days since 1970-01-01',
    end Date DEFAULT toDate(end_day) COMMENT 'First day after the period',
    length LowCardinality(String) COMMENT 'day, month, quarter, half_year or year',
    agency LowCardinality(String) COMMENT 'Catalogue code of the agency; empty for all agencies',
    service LowCardinality(String) COMMENT 'Catalogue code of the service; empty for all of the agency',
    channel LowCardinality(String) COMMENT 'Channel; empty for all channels',
    hundredths UInt64 EPHEMERAL COMMENT 'For inserting only: value in hundredths',
    value Decimal(18, 2) DEFAULT toDecimal64(hundredths, 2) / 100 COMMENT 'The number; of a cost, in the currency',
    currency LowCardinality(String) COMMENT 'Of a cost: ISO 4217 code',
    void UInt8 COMMENT '1 takes back what was said before',
    event_id String COMMENT 'id of the CloudEvent',
    source String COMMENT 'source of the CloudEvent: who said it, and from which file',
    recorded_at DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(recorded_ms, 'UTC') COMMENT 'Time stamp of the message',
    recorded_ms Int64 EPHEMERAL COMMENT 'For inserting only: recorded_at in Unix milliseconds',
    topic_id LowCardinality(String) COMMENT 'Id that Kafka gave the topic',
    offset UInt64 COMMENT 'Offset of the message'
)
ENGINE = ReplacingMergeTree(offset)
ORDER BY (measure, start, length, agency, service, channel, topic_id)
COMMENT 'Figures that others counted, as they were said; read them through the view imported';

CREATE OR REPLACE VIEW imported AS
SELECT
    measure,
    start,
    end,
    length,
    agency,
    service,
    channel,
    value,
    currency,
    source,
    recorded_at
FROM
(
    -- Of a topic that was made anew the same may have been said on both.
    SELECT * FROM figures FINAL
    ORDER BY recorded_at DESC, offset DESC
    LIMIT 1 BY measure, start, length, agency, service, channel
)
WHERE void = 0;

-- Long series: what the pipeline counted by month beside what others counted, each row with its origin.
CREATE OR REPLACE VIEW uses_by_origin AS
SELECT
    'counted' AS origin,
    agency,
    service,
    channel,
    month AS start,
    addMonths(month, 1) AS end,
    'month' AS length,
    toUInt64(sum(uses)) AS uses,
    '' AS source
FROM monthly
GROUP BY agency, service, channel, month
UNION ALL
SELECT 'imported' AS origin, agency, service, channel, start, end, length, toUInt64(value) AS uses, source
FROM imported
WHERE measure = 'uses';
