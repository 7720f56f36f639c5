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

ALTER TABLE receipts
    ADD COLUMN IF NOT EXISTS next_rules String COMMENT 'Rules that the next segment inherits, if a marker named others' AFTER rules;
