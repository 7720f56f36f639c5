"""The analysts' questions, as SQL on the views of docs/analysts.md, with parameters that change with each asking.

A month, quarter, week, day or service is drawn for each repetition, the same in each run. ``free`` are the questions to
single events, which no table of totals can serve.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from benchmarks.year.shape import END, ZONE, popularity

Parameters = dict[str, str | int]
YEAR: Final = 2025
LAST_DAY: Final = date(YEAR, 12, 31)
_Draw = Callable[[random.Random], Parameters]


@dataclass(frozen=True, slots=True)
class Question:
    """One question. ``view`` serves it; ``draw`` makes the parameters of one asking."""

    name: str
    words: str
    view: str
    sql: str
    draw: _Draw
    free: bool = False

    def parameters(self, repetition: int) -> Parameters:
        """The parameters of a repetition, always the same."""
        return self.draw(random.Random(f"{self.name} {repetition}"))


def _month(draw: random.Random) -> Parameters:
    # The month before is there, too.
    return {"month": f"{YEAR}-{draw.randint(2, 12):02}-01"}


def _days_of_month(draw: random.Random) -> Parameters:
    month = draw.randint(1, 12)
    following = date(YEAR + month // 12, month % 12 + 1, 1)
    return {"first": date(YEAR, month, 1).isoformat(), "last": (following - timedelta(days=1)).isoformat()}


def _quarter(draw: random.Random) -> Parameters:
    quarter = draw.randrange(4)
    first = date(YEAR, 3 * quarter + 1, 1)
    following = date(YEAR + quarter // 3, (3 * quarter + 3) % 12 + 1, 1)
    return {"first": first.isoformat(), "last": (following - timedelta(days=1)).isoformat()} | _hours(first, following)


def _week(draw: random.Random) -> Parameters:
    monday = date(YEAR, 1, 6) + timedelta(weeks=draw.randrange(1, 51))
    return {"week": monday.isoformat()} | _hours(monday, monday + timedelta(days=7))


def _day(draw: random.Random) -> Parameters:
    day = date(YEAR, 1, 2) + timedelta(days=draw.randrange(363))
    return {"day": day.isoformat()} | _hours(day, day + timedelta(days=1))


def _hours(first: date, following: date) -> Parameters:
    """The same time for what is asked by hours, in Baku: from, until, Unix seconds."""
    moments = [datetime(one.year, one.month, one.day, tzinfo=UTC) - timedelta(hours=4) for one in (first, following)]
    return {"from": round(moments[0].timestamp()), "until": round(moments[1].timestamp())}


def _service(draw: random.Random) -> Parameters:
    # As often a popular one as a rare one.
    place = draw.choice((0, 18, 36, draw.randrange(len(popularity().agencies))))
    return {"agency": popularity().agencies[place], "service": popularity().services[place]}


def _agency(draw: random.Random) -> Parameters:
    return {"agency": _service(draw)["agency"]}


def _application(draw: random.Random) -> Parameters:
    return {"application": f"A-{3 * draw.randrange(100)}"}


def _now(draw: random.Random) -> Parameters:
    del draw
    return {"now": round(END.timestamp())}


def _nothing(draw: random.Random) -> Parameters:
    del draw
    return {}


def _both(*draws: _Draw) -> _Draw:
    return lambda draw: {name: value for one in draws for name, value in one(draw).items()}


_ZONE = f"zone = '{ZONE}'"
_FROM = "toDateTime({from:UInt32}, 'UTC')"
_UNTIL = "toDateTime({until:UInt32}, 'UTC')"
_NOW = "toDateTime({now:UInt32}, 'UTC')"
_COMPLETED = "outcome IN ('success', 'not_eligible')"


def _percentiles(source: str, by: str, shares: str) -> str:
    """Percentiles as in docs/analysts.md, query 3."""
    return (
        f"WITH 1.01 / 0.99 AS g SELECT {by}, sum(uses) AS total, sumMap(histogram) AS durations,"
        " arrayCumSum(mapValues(durations)) AS ranks,"
        " arrayMap(share -> arrayFirst((bucket, rank) -> rank >= ceil(share * total), mapKeys(durations), ranks),"
        f" {shares}) AS buckets,"
        " arrayMap(bucket -> if(bucket = -1, 0, 2 * pow(g, bucket) / (g + 1)), buckets) AS percentiles"
        f" FROM {source} GROUP BY {by}"
    )


def _p99_by_hour(source: str) -> str:
    inner = _percentiles(source, "agency, service, hour", "[0.99]")
    return f"SELECT agency, service, hour, total, percentiles[1] AS p99_ms FROM ({inner})"


QUESTIONS: Final = (
    Question(
        "top_agencies_month",
        "The ten most popular agencies of a month, by uses, with people",
        "daily",
        "SELECT agency, sum(uses) AS total, uniqCombined64Merge(users) AS people FROM daily"
        f" WHERE {_ZONE} AND day BETWEEN {{first:Date}} AND {{last:Date}}"
        " GROUP BY agency ORDER BY total DESC, agency LIMIT 10",
        _days_of_month,
    ),
    Question(
        "top_services_agency_month",
        "The ten most popular services of an agency in a month, with people",
        "daily",
        "SELECT service, sum(uses) AS total, uniqCombined64Merge(users) AS people FROM daily"
        f" WHERE {_ZONE} AND day BETWEEN {{first:Date}} AND {{last:Date}} AND agency = {{agency:String}}"
        " GROUP BY service ORDER BY total DESC, service LIMIT 10",
        _both(_days_of_month, _agency),
    ),
    Question(
        "top_services_month",
        "The twenty most popular services of all, and what changed against the month before",
        "monthly",
        "SELECT agency, service, sumIf(uses, month = {month:Date}) AS total,"
        " sumIf(uses, month < {month:Date}) AS before, toInt64(total) - toInt64(before) AS difference FROM monthly"
        f" WHERE {_ZONE} AND month >= toDate({{month:Date}}) - INTERVAL 1 MONTH AND month <= {{month:Date}}"
        " GROUP BY agency, service ORDER BY total DESC, agency, service LIMIT 20",
        _month,
    ),
    Question(
        "weekly_change",
        "The services that gained or lost most against the week before",
        "weekly",
        "SELECT agency, service, sumIf(uses, week = {week:Date}) AS this_week,"
        " sumIf(uses, week < {week:Date}) AS week_before, toInt64(this_week) - toInt64(week_before) AS difference"
        f" FROM weekly WHERE {_ZONE} AND week >= toDate({{week:Date}}) - 7 AND week <= {{week:Date}}"
        " GROUP BY agency, service ORDER BY abs(difference) DESC, agency, service LIMIT 20",
        _week,
    ),
    Question(
        "people_month",
        "People of a month, the whole state",
        "daily",
        f"SELECT uniqCombined64Merge(users) AS people FROM daily WHERE {_ZONE}"
        " AND day BETWEEN {first:Date} AND {last:Date}",
        _days_of_month,
    ),
    Question(
        "people_month_agencies",
        "People of a month by agency",
        "daily",
        "SELECT agency, sum(uses) AS total, uniqCombined64Merge(users) AS people, min(source = 'ledger') AS complete"
        f" FROM daily WHERE {_ZONE} AND day BETWEEN {{first:Date}} AND {{last:Date}}"
        " GROUP BY agency ORDER BY people DESC, agency",
        _days_of_month,
    ),
    Question(
        "people_year",
        "People of each month of the year, the whole state",
        "monthly",
        f"SELECT month, uniqCombined64Merge(users) AS people FROM monthly WHERE {_ZONE}"
        f" AND month >= '{YEAR}-01-01' AND month <= '{YEAR}-12-31' GROUP BY month ORDER BY month",
        _nothing,
    ),
    Question(
        "people_week",
        "People of a week by agency",
        "weekly",
        "SELECT agency, uniqCombined64Merge(users) AS people FROM weekly"
        f" WHERE {_ZONE} AND week = {{week:Date}} GROUP BY agency ORDER BY people DESC, agency",
        _week,
    ),
    Question(
        "people_days_service",
        "People of each day of a quarter, one service",
        "daily",
        "SELECT day, sum(uses) AS total, uniqCombined64Merge(users) AS people FROM daily"
        f" WHERE {_ZONE} AND day BETWEEN {{first:Date}} AND {{last:Date}}"
        " AND agency = {agency:String} AND service = {service:String} GROUP BY day ORDER BY day",
        _both(_quarter, _service),
    ),
    Question(
        "p99_hours_day",
        "p99 of every service and hour of a day",
        "hourly",
        _p99_by_hour(f"hourly WHERE hour >= {_FROM} AND hour < {_UNTIL}"),
        _day,
    ),
    Question(
        "p99_hours_week",
        "p99 of every service of an agency and hour of a week",
        "hourly",
        _p99_by_hour(f"hourly WHERE hour >= {_FROM} AND hour < {_UNTIL} AND agency = {{agency:String}}"),
        _both(_week, _agency),
    ),
    Question(
        "p99_hours_week_all",
        "p99 of every service and hour of a week",
        "hourly",
        _p99_by_hour(f"hourly WHERE hour >= {_FROM} AND hour < {_UNTIL}"),
        _week,
    ),
    Question(
        "trend_days",
        "A year of one service by days",
        "daily",
        "SELECT day, sum(uses) AS total, sumIf(uses, outcome = 'failure') AS failures FROM daily"
        f" WHERE {_ZONE} AND day >= '{YEAR}-01-01' AND agency = {{agency:String}} AND service = {{service:String}}"
        " GROUP BY day ORDER BY day",
        _service,
    ),
    Question(
        "trend_weeks",
        "A year of one service by weeks, with people",
        "weekly",
        "SELECT week, sum(uses) AS total, uniqCombined64Merge(users) AS people FROM weekly"
        f" WHERE {_ZONE} AND agency = {{agency:String}} AND service = {{service:String}} GROUP BY week ORDER BY week",
        _service,
    ),
    Question(
        "trend_months",
        "A year of one service by months, with people and p95",
        "monthly",
        "SELECT month, total, people, percentiles[1] AS p95_ms FROM ("
        + _percentiles(
            f"monthly WHERE {_ZONE} AND agency = {{agency:String}} AND service = {{service:String}}",
            "month",
            "[0.95]",
        ).replace("sum(uses) AS total,", "sum(uses) AS total, uniqCombined64Merge(users) AS people,")
        + ") ORDER BY month",
        _service,
    ),
    Question(
        "heat_map",
        "Uses by hour of the day and weekday in Baku, a quarter, the whole state",
        "hourly",
        "SELECT toDayOfWeek(hour, 0, 'Asia/Baku') AS weekday, toHour(hour, 'Asia/Baku') AS hour_of_day,"
        f" sum(uses) AS total FROM hourly WHERE hour >= {_FROM} AND hour < {_UNTIL}"
        " GROUP BY weekday, hour_of_day ORDER BY weekday, hour_of_day",
        _quarter,
    ),
    Question(
        "heat_map_service",
        "Uses by hour of the day and weekday in Baku, a quarter, one service",
        "hourly",
        "SELECT toDayOfWeek(hour, 0, 'Asia/Baku') AS weekday, toHour(hour, 'Asia/Baku') AS hour_of_day,"
        f" sum(uses) AS total FROM hourly WHERE hour >= {_FROM} AND hour < {_UNTIL}"
        " AND agency = {agency:String} AND service = {service:String}"
        " GROUP BY weekday, hour_of_day ORDER BY weekday, hour_of_day",
        _both(_quarter, _service),
    ),
    Question(
        "take_up_months",
        "Digital take-up and completion by month of the year, the whole state",
        "monthly",
        f"SELECT month, sumIf(uses, {_COMPLETED}) AS completed,"
        f" sumIf(uses, {_COMPLETED} AND channel IN ('web', 'mobile')) AS digital, sum(uses) AS total FROM monthly"
        f" WHERE {_ZONE} AND channel != 'api' AND month >= '{YEAR}-01-01' GROUP BY month ORDER BY month",
        _nothing,
    ),
    Question(
        "take_up_agencies",
        "Digital take-up of each agency in a month",
        "monthly",
        f"SELECT agency, sumIf(uses, {_COMPLETED}) AS completed,"
        f" sumIf(uses, {_COMPLETED} AND channel IN ('web', 'mobile')) AS digital, sum(uses) AS total FROM monthly"
        f" WHERE {_ZONE} AND channel != 'api' AND month = {{month:Date}} GROUP BY agency ORDER BY agency",
        _month,
    ),
    Question(
        "channels_year",
        "Uses by channel and month of the year",
        "monthly",
        f"SELECT month, channel, sum(uses) AS total FROM monthly WHERE {_ZONE} AND month >= '{YEAR}-01-01'"
        " GROUP BY month, channel ORDER BY month, channel",
        _nothing,
    ),
    Question(
        "score_card",
        "Score card of every service of a month: uses, failures, completion, p50, p95, p99",
        "monthly",
        "SELECT agency, service, total, failures, completed, percentiles FROM ("
        + _percentiles(
            f"monthly WHERE {_ZONE} AND month = {{month:Date}}", "agency, service", "[0.5, 0.95, 0.99]"
        ).replace(
            "sum(uses) AS total,",
            "sum(uses) AS total, sumIf(uses, outcome = 'failure') AS failures,"
            f" sumIf(uses, {_COMPLETED}) AS completed,",
        )
        + ") ORDER BY agency, service",
        _month,
    ),
    Question(
        "coverage",
        "Services in the catalogue and services used in a month, by agency",
        "services, monthly",
        "SELECT agency, count() AS services, countIf((agency, service) IN (SELECT agency, service FROM monthly"
        f" WHERE {_ZONE} AND month = {{month:Date}})) AS used FROM services GROUP BY agency ORDER BY agency",
        _month,
    ),
    Question(
        "never_used",
        "Services of the catalogue that nobody ever used",
        "services, daily",
        "SELECT agency, service FROM services WHERE (agency, service) NOT IN (SELECT agency, service FROM daily)"
        " ORDER BY agency, service",
        _nothing,
    ),
    Question(
        "reporting",
        "Agencies that reported on a day, of those registered",
        "hourly",
        "SELECT uniqExact(agency) AS reporting, (SELECT count() FROM agencies) AS registered FROM hourly"
        f" WHERE hour >= {_FROM} AND hour < {_UNTIL}",
        _day,
    ),
    Question(
        "refused",
        "What was refused, by reason and day of a month",
        "segments",
        "SELECT toDate(fromUnixTimestamp64Milli(first_timestamp, 'UTC')) AS day, sum(events) AS received,"
        " sum(rejected_total) AS refused FROM segments"
        " WHERE toStartOfMonth(fromUnixTimestamp64Milli(first_timestamp, 'UTC')) = {month:Date}"
        " GROUP BY day ORDER BY day",
        _month,
    ),
    Question(
        "failures_24h",
        "Failure share of every service, the last 24 hours",
        "hourly",
        "SELECT agency, service, sum(uses) AS total, sumIf(uses, outcome = 'failure') AS failures FROM hourly"
        f" WHERE hour >= {_NOW} - INTERVAL 24 HOUR AND hour < {_NOW} GROUP BY agency, service"
        " ORDER BY failures / total DESC, agency, service",
        _now,
    ),
    Question(
        "agency_hours",
        "Uses, people, failures, p50, p95, p99 of each agency and hour of a day",
        "agency_hours",
        f"SELECT * FROM agency_hours WHERE hour >= {_FROM} AND hour < {_UNTIL} ORDER BY agency, hour",
        _day,
    ),
    Question(
        "live",
        "Uses and failures in each of the last 60 minutes, the whole state",
        "usage",
        "SELECT minute, sum(uses) AS total, sumIf(uses, outcome = 'failure') AS failures FROM usage"
        f" WHERE minute >= {_NOW} - INTERVAL 60 MINUTE AND minute < {_NOW} GROUP BY minute ORDER BY minute",
        _now,
    ),
    Question(
        "live_agency",
        "Uses and p95 of each service of an agency, the last 60 minutes",
        "usage",
        "SELECT service, total, percentiles[1] AS p95_ms FROM ("
        + _percentiles(
            f"usage WHERE minute >= {_NOW} - INTERVAL 60 MINUTE AND minute < {_NOW} AND agency = {{agency:String}}",
            "service",
            "[0.95]",
        )
        + ") ORDER BY total DESC, service",
        _both(_now, _agency),
    ),
    Question(
        "minutes_day_service",
        "One service by minutes of a day",
        "usage",
        f"SELECT minute, sum(uses) AS total FROM usage WHERE minute >= {_FROM} AND minute < {_UNTIL}"
        " AND agency = {agency:String} AND service = {service:String} GROUP BY minute ORDER BY minute",
        _both(_day, _service),
    ),
    Question(
        "centres",
        "Uses and people by centre and district, a month",
        "events",
        "SELECT centre, district, count() AS uses, uniqExactIf(user_hash, user_hash != 0) AS people FROM events"
        f" WHERE stage = '' AND centre != '' AND time >= {_FROM} AND time < {_UNTIL}"
        " GROUP BY centre, district ORDER BY uses DESC, centre, district",
        lambda draw: _month_hours(draw),
        free=True,
    ),
    Question(
        "slow_sign_in",
        "Uses of more than ten seconds by sign-in method, a day",
        "events",
        f"SELECT sign_in, count() AS uses, countIf(duration_ms > 10000) AS slow FROM events WHERE stage = ''"
        f" AND time >= {_FROM} AND time < {_UNTIL} GROUP BY sign_in ORDER BY sign_in",
        _day,
        free=True,
    ),
    Question(
        "systems",
        "Calls between systems: consumer, provider, failures and p95, a month",
        "events",
        "SELECT consumer, agency AS provider, count() AS calls, countIf(outcome = 'failure') AS failures,"
        f" quantile(0.95)(duration_ms) AS p95_ms FROM events WHERE stage = '' AND consumer != ''"
        f" AND time >= {_FROM} AND time < {_UNTIL} GROUP BY consumer, provider ORDER BY calls DESC, consumer, provider",
        lambda draw: _month_hours(draw),
        free=True,
    ),
    Question(
        "hosting",
        "Uses, failures and p95 by hosting and week, a quarter",
        "events",
        "SELECT hosting, toStartOfWeek(time, 1, 'Asia/Baku') AS week, count() AS uses,"
        " countIf(outcome = 'failure') AS failures, quantile(0.95)(duration_ms) AS p95_ms FROM events"
        f" WHERE stage = '' AND hosting != '' AND time >= {_FROM} AND time < {_UNTIL}"
        " GROUP BY hosting, week ORDER BY hosting, week",
        _quarter,
        free=True,
    ),
    Question(
        "initiator",
        "Share of the uses that the state began, and satisfaction, by agency, a month",
        "events",
        "SELECT agency, count() AS uses, countIf(initiator = 'state') AS by_state, countIf(rating > 0) AS ratings,"
        f" (avgIf(rating, rating > 0) - 1) / 4 AS satisfaction FROM events WHERE stage = '' AND time >= {_FROM}"
        f" AND time < {_UNTIL} GROUP BY agency ORDER BY agency",
        lambda draw: _month_hours(draw),
        free=True,
    ),
    Question(
        "application",
        "The stages of one application",
        "events",
        "SELECT agency, service, stage, time FROM events WHERE application = {application:String} ORDER BY time, stage",
        _application,
        free=True,
    ),
    Question(
        "applications",
        "How many applications of a quarter stand at each stage, and the time to the answer",
        "events",
        "SELECT agency, countIf(responded = 0) AS waiting, countIf(responded > 0) AS answered,"
        " quantileIf(0.95)(responded - received, responded > 0 AND received > 0) AS p95_seconds FROM"
        " (SELECT agency, service, application, minIf(toUnixTimestamp(time), stage = 'received') AS received,"
        " minIf(toUnixTimestamp(time), stage = 'responded') AS responded FROM events WHERE stage != ''"
        f" AND time >= {_FROM} AND time < {_UNTIL} GROUP BY agency, service, application)"
        " GROUP BY agency ORDER BY agency",
        _quarter,
        free=True,
    ),
    Question(
        "people_exact",
        "People of a month exactly, the whole state",
        "events",
        f"SELECT uniqExactIf(user_hash, user_hash != 0) AS people FROM events WHERE stage = '' AND time >= {_FROM}"
        f" AND time < {_UNTIL}",
        lambda draw: _month_hours(draw),
        free=True,
    ),
)


def _month_hours(draw: random.Random) -> Parameters:
    month = draw.randint(1, 12)
    return _hours(date(YEAR, month, 1), date(YEAR + month // 12, month % 12 + 1, 1))
