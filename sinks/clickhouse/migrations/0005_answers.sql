-- Ready answers for analysts. All times are UTC; g = 1.01 / 0.99 is the base of the histogram's buckets.
CREATE VIEW IF NOT EXISTS agency_hours AS
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
        toStartOfHour(minute) AS hour,
        sum(events) AS uses,
        uniqCombined64Merge(users) AS people,
        sumIf(events, outcome = 'failure') AS failures,
        sum(duration_ms_sum) / uses AS mean_ms,
        sumMap(histogram) AS durations,
        arrayCumSum(mapValues(durations)) AS ranks,
        arrayFirst((bucket, rank) -> rank >= ceil(0.50 * uses), mapKeys(durations), ranks) AS bucket_50,
        arrayFirst((bucket, rank) -> rank >= ceil(0.95 * uses), mapKeys(durations), ranks) AS bucket_95,
        arrayFirst((bucket, rank) -> rank >= ceil(0.99 * uses), mapKeys(durations), ranks) AS bucket_99
    FROM minutes FINAL
    WHERE stage = ''
    GROUP BY agency, hour
);
