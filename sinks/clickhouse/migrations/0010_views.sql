-- The same views, read faster; names, columns and answers stay. Two settings of the readings inside them:
-- optimize_move_to_prewhere_if_final lets ClickHouse look at conditions on the sorting key (agency, service, period, channel,
-- outcome) first and read states and histograms of nothing else; it moves no condition on other columns below FINAL.
-- do_not_merge_across_partitions_select_final: a key never stands in two partitions, since all are cut by a column of it.
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
WHERE stage = ''
SETTINGS optimize_move_to_prewhere_if_final = 1, do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW events AS
SELECT * EXCEPT version
FROM ledger FINAL
SETTINGS optimize_move_to_prewhere_if_final = 1, do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW hourly AS
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
WHERE stage = '' AND events > 0
SETTINGS optimize_move_to_prewhere_if_final = 1, do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW daily AS
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
WHERE stage = '' AND events > 0
SETTINGS optimize_move_to_prewhere_if_final = 1, do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW weekly AS
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
GROUP BY agency, service, zone, week, channel, outcome
SETTINGS optimize_move_to_prewhere_if_final = 1, do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW monthly AS
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
GROUP BY agency, service, zone, month, channel, outcome
SETTINGS optimize_move_to_prewhere_if_final = 1, do_not_merge_across_partitions_select_final = 1;

-- Closed hours from the hours, which also leave out the repeats that minutes count again; the others from the minutes, which
-- ClickHouse need not read where the hour is closed.
CREATE OR REPLACE VIEW agency_hours AS
SELECT
    agency,
    hour,
    uses,
    people,
    failures,
    mean_ms,
    if(bucket_50 = -1, 0, 2 * pow(1.01 / 0.99, bucket_50) / (1.01 / 0.99 + 1)) AS p50_ms,
    if(bucket_95 = -1, 0, 2 * pow(1.01 / 0.99, bucket_95) / (1.01 / 0.99 + 1)) AS p95_ms,
    if(bucket_99 = -1, 0, 2 * pow(1.01 / 0.99, bucket_99) / (1.01 / 0.99 + 1)) AS p99_ms
FROM
(
    SELECT
        agency,
        hour,
        sum(events) AS uses,
        uniqCombined64Merge(users) AS people,
        sumIf(events, outcome = 'failure') AS failures,
        sum(duration_ms_sum) / uses AS mean_ms,
        sumMap(histogram) AS durations,
        arrayCumSum(mapValues(durations)) AS ranks,
        arrayFirst((bucket, rank) -> rank >= ceil(0.50 * uses), mapKeys(durations), ranks) AS bucket_50,
        arrayFirst((bucket, rank) -> rank >= ceil(0.95 * uses), mapKeys(durations), ranks) AS bucket_95,
        arrayFirst((bucket, rank) -> rank >= ceil(0.99 * uses), mapKeys(durations), ranks) AS bucket_99
    FROM
    (
        SELECT agency, hour, outcome, events, duration_ms_sum, histogram, users
        FROM hours FINAL
        WHERE stage = '' AND source = 'ledger' AND events > 0
        UNION ALL
        SELECT agency, toStartOfHour(minute) AS hour, outcome, events, duration_ms_sum, histogram, users
        FROM minutes FINAL
        WHERE stage = '' AND toStartOfHour(minute) NOT IN (SELECT DISTINCT hour FROM hours WHERE source = 'ledger')
    )
    GROUP BY agency, hour
)
SETTINGS optimize_move_to_prewhere_if_final = 1, do_not_merge_across_partitions_select_final = 1;
