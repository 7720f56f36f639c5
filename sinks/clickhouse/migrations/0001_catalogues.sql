-- Every catalogue that a segment was ever judged by. A version stands for one content, for ever.
CREATE TABLE IF NOT EXISTS catalogues
(
    version UInt32 COMMENT 'Version number of the catalogue',
    checksum String COMMENT 'SHA-256 of the canonical JSON, hexadecimal',
    content String COMMENT 'The catalogue as canonical JSON' CODEC(ZSTD(3)),
    stored_at DateTime('UTC') DEFAULT now('UTC') COMMENT 'When a worker first used it'
)
ENGINE = ReplacingMergeTree
ORDER BY (version, checksum)
COMMENT 'Catalogues by version, as the workers used them';

CREATE VIEW IF NOT EXISTS agencies AS
SELECT
    JSONExtractString(agency_json, 'code') AS agency,
    JSONExtractString(agency_json, 'name', 'az') AS name_az,
    JSONExtractString(agency_json, 'name', 'en') AS name_en,
    JSONExtractString(agency_json, 'name', 'ru') AS name_ru,
    length(JSONExtractArrayRaw(agency_json, 'services')) AS services
FROM (SELECT content FROM catalogues ORDER BY version DESC LIMIT 1)
ARRAY JOIN JSONExtractArrayRaw(content, 'agencies') AS agency_json;

CREATE VIEW IF NOT EXISTS services AS
SELECT
    JSONExtractString(agency_json, 'code') AS agency,
    JSONExtractString(service_json, 'code') AS service,
    JSONExtractString(service_json, 'name', 'az') AS name_az,
    JSONExtractString(service_json, 'name', 'en') AS name_en,
    JSONExtractString(service_json, 'name', 'ru') AS name_ru
FROM
(
    SELECT agency_json
    FROM (SELECT content FROM catalogues ORDER BY version DESC LIMIT 1)
    ARRAY JOIN JSONExtractArrayRaw(content, 'agencies') AS agency_json
)
ARRAY JOIN JSONExtractArrayRaw(agency_json, 'services') AS service_json;
