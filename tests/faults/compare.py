"""The tables against the truth: what is missing, what is there once too often, and what contradicts itself."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sinks.clickhouse.audit import AuditReport
from sinks.clickhouse.client import Client
from sinks.clickhouse.periods import recompute
from tests.faults.log import LogRecord
from tests.faults.oracle import Group, Place, Truth

K = TypeVar("K")

ZONE: Final = "Asia/Baku"
ZONE_SECONDS: Final = 4 * 3600
"""Ahead of UTC, without daylight saving time since 2016 (IANA time zone database)."""


@dataclass(slots=True)
class Difference:
    """``lost`` and ``duplicated`` count rows, events and letters over all books; ``words`` say where."""

    lost: int = 0
    duplicated: int = 0
    words: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether everything is as it must be."""
        return not (self.lost or self.duplicated or self.words)

    def compare(self, book: str, expected: Mapping[K, int], found: Mapping[K, int]) -> None:
        """Add what ``found`` has less or more of than ``expected``."""
        short = {key: n - found.get(key, 0) for key, n in expected.items() if n > found.get(key, 0)}
        over = {key: n - expected.get(key, 0) for key, n in found.items() if n > expected.get(key, 0)}
        self.lost += sum(short.values())
        self.duplicated += sum(over.values())
        if short:
            self.words.append(f"{book}: {sum(short.values())} missing, for instance {next(iter(short.items()))}")
        if over:
            self.words.append(f"{book}: {sum(over.values())} too many, for instance {next(iter(over.items()))}")


def compare(truth: Truth, client: Client, letters: Iterable[LogRecord], report: AuditReport) -> Difference:
    """Compare ledger, minutes, receipts, dead letters and periods with the truth, and add what the audit found."""
    difference = Difference()
    _compare_ledger(truth, client, difference)
    _compare_minutes(truth, client, difference)
    _compare_receipts(truth, client, difference)
    _compare_letters(truth, letters, difference)
    compare_periods(truth, client, difference)
    if report.repeats != truth.repeats:
        difference.words.append(f"the audit tells {report.repeats} repeats, the log has {truth.repeats}")
    difference.words += [f"audit: {item.check}: {item.where}: {item.words}" for item in report.findings]
    return difference


def compare_periods(truth: Truth, client: Client, difference: Difference) -> None:
    """Hours and days, first as they are due now, then as if all were closed, against minutes and ledger of the truth.

    Whatever dead workers and zombies wrote of them, one more recomputation must end in the right numbers.
    """
    counted = Counter(fact.group for fact in truth.ledger.values())
    if not counted:
        return
    minutes = [minute for _, _, minute, _ in counted]
    start, end = (datetime.fromtimestamp(minute, UTC) for minute in (min(minutes), max(minutes) + 60))
    now = datetime.now(UTC)
    for moment, words in ((now, ""), (max(now, end) + timedelta(days=3), ", all closed")):
        recompute(client, start, end, ZONE, moment)
        for table, shift, length, period in (
            ("hours", 0, 3600, "toUnixTimestamp(hour)"),
            ("days", ZONE_SECONDS, 86_400, "toUnixTimestamp(toDateTime(day, 'UTC'))"),
        ):
            rows = client.query(
                f"SELECT {period} AS period, agency, service, stage != '' AS staged, sum(events) AS n,"
                f" groupUniqArray(source) AS sources FROM {table} FINAL WHERE events > 0 GROUP BY ALL"
            ).rows
            found = {(began, agency, service, bool(staged)): n for began, agency, service, staged, n, _ in rows}
            open_ones = {began for began, *_, sources in rows if sources == ["minutes"]}
            if words and open_ones:
                difference.words.append(f"{table}{words}: {len(open_ones)} are not")
            expected: Counter[tuple[int, str, str, bool]] = Counter()
            for book, is_open in ((truth.minutes, True), (counted, False)):
                for (agency, service, minute, staged), n in book.items():
                    began = (minute + shift) // length * length
                    if (began in open_ones) == is_open:
                        expected[began, agency, service, staged] += n
            difference.compare(table + words, expected, found)


def _compare_ledger(truth: Truth, client: Client, difference: Difference) -> None:
    expected = Counter((fact.group, fact.event_id, fact.duration_ms) for fact in truth.ledger.values())
    found = Counter(
        ((agency, service, minute, bool(stage)), event_id, duration)
        for agency, service, minute, stage, event_id, duration in client.query(
            "SELECT agency, service, toUnixTimestamp(toStartOfMinute(time)), stage != '', event_id, duration_ms"
            " FROM events"
        ).rows
    )
    difference.compare("ledger", expected, found)


def _compare_minutes(truth: Truth, client: Client, difference: Difference) -> None:
    rows = client.query(
        "SELECT agency, service, toUnixTimestamp(minute), stage != '', sum(events), sum(duration_ms_sum)"
        " FROM minutes FINAL GROUP BY ALL"
    ).rows
    events: dict[Group, int] = {}
    durations: dict[Group, int] = {}
    for agency, service, minute, stage, n, duration in rows:
        group = agency, service, minute, bool(stage)
        events[group], durations[group] = n, duration
    difference.compare("minutes", truth.minutes, events)
    for group, duration in truth.durations.items():
        if durations.get(group, 0) != duration and events.get(group) == truth.minutes[group]:
            difference.words.append(f"minutes: {group}: durations sum up to {durations.get(group)}, not {duration}")
    ((uses,),) = client.query("SELECT sum(uses) FROM usage").rows
    expected = sum(n for (_, _, _, stage), n in truth.minutes.items() if not stage)
    difference.compare("usage", {"uses": expected}, {"uses": uses})


def _compare_receipts(truth: Truth, client: Client, difference: Difference) -> None:
    ((events, accepted, duplicates, rejected),) = client.query(
        "SELECT sum(events), sum(accepted), sum(duplicates), sumMap(rejected) FROM segments"
    ).rows
    found = Counter(events=events, accepted=accepted, duplicates=duplicates)
    expected = Counter(events=truth.events, accepted=truth.accepted, duplicates=truth.duplicates)
    difference.compare("receipts", expected, found)
    difference.compare("receipts by reason", Counter(truth.rejected.values()), _counts(rejected))


def _counts(rejected: Any) -> dict[str, int]:
    return {str(reason): int(n) for reason, n in rejected.items()}


def _compare_letters(truth: Truth, letters: Iterable[LogRecord], difference: Difference) -> None:
    """A letter that came twice is one: its place in the log says so."""
    found = {place_of(letter): dict(letter.headers)["xidmet-reason"].decode() for letter in letters}
    expected = Counter(truth.rejected.items())
    difference.compare("dead letters", expected, Counter(found.items()))


def place_of(letter: LogRecord) -> Place:
    """The place in the log that a dead letter names."""
    headers = dict(letter.headers)
    topic_id, *numbers = (headers[f"xidmet-{name}"] for name in ("topic-id", "partition", "offset", "batch-index"))
    partition, offset, index = map(int, numbers)
    return topic_id.decode(), partition, offset, index
