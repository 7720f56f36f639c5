-- Fewer merges: parts are merged when their sum is ten times the largest, no longer five times, so that a row is written again
-- less often while many come. Parts that have lain for a while are merged all the same (docs/decisions/0020).
ALTER TABLE ledger MODIFY SETTING merge_selector_base = 10;

ALTER TABLE coordinates MODIFY SETTING merge_selector_base = 10;

ALTER TABLE minutes MODIFY SETTING merge_selector_base = 10;
