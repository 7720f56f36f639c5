-- Further dimensions of the minutes, empty unless the rules of a segment name them (setting fold.dimensions). They are
-- appended to the sorting key, which is possible only in the statement that adds them; run again, it changes nothing.
ALTER TABLE minutes
    ADD COLUMN IF NOT EXISTS hosting LowCardinality(String) COMMENT 'government_cloud or own; empty unless a dimension',
    ADD COLUMN IF NOT EXISTS initiator LowCardinality(String) COMMENT 'citizen or state; empty unless a dimension',
    ADD COLUMN IF NOT EXISTS centre LowCardinality(String) COMMENT 'Service centre; empty unless a dimension',
    ADD COLUMN IF NOT EXISTS district LowCardinality(String) COMMENT 'District; empty unless a dimension',
    ADD COLUMN IF NOT EXISTS sign_in LowCardinality(String) COMMENT 'Sign-in or signature method; empty unless a dimension',
    ADD COLUMN IF NOT EXISTS consumer LowCardinality(String) COMMENT 'Calling system; empty unless a dimension',
    MODIFY ORDER BY (agency, service, minute, channel, outcome, stage, topic_id, partition, segment, hosting, initiator, centre, district, sign_in, consumer);

CREATE OR REPLACE VIEW usage AS
SELECT
    agency,
    service,
    minute,
    channel,
    outcome,
    events AS uses,
    duration_ms_sum,
    histogram,
    users,
    hosting,
    initiator,
    centre,
    district,
    sign_in,
    consumer
FROM minutes FINAL
WHERE stage = '';
