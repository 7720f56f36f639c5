"""``xidmet rebuild``: tables made anew beside the live ones, from the log or the ledger, and exchanged.

Steps, each of which may be repeated after a kill; ``report`` is told of each before it begins:

1. ``claim``: the record of the rebuild, and the claim that keeps a second one away.
2. ``tables``: empty shadow tables.
3. ``forward``: views that forward what the workers write from now on.
4. ``copy``: the rows of all segments that are not made anew.
5. ``fill``: the segments of the plan, folded from the log or put together from the ledger; each must equal its receipt.
6. ``check``: the audit judges the shadows, and they are compared with the live tables.
7. ``exchange``: from here on a rebuild that was killed is finished, never undone. Table by table, each at once.
8. ``catch up``: what was on its way into the old tables.
9. ``periods``: what is derived from the tables.
10. ``drop``: the old tables, unless they are to be kept.

Until step 7 the live tables are only read.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct

from pipeline.catalogue import Catalogue
from pipeline.errors import AuditError, StoreError
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.receipt import Receipt
from pipeline.fold.rules import Rules
from pipeline.runtime.endpoint import find_endpoint
from pipeline.runtime.log_reader import LogReader
from pipeline.settings import Settings
from sinks.clickhouse import rebuild_shadow as shadow
from sinks.clickhouse.catalogues import stored_catalogue
from sinks.clickhouse.client import Client, connect, parse_url
from sinks.clickhouse.periods import raise_epoch, recompute
from sinks.clickhouse.positions import memory_before
from sinks.clickhouse.rebuild_check import Difference, differences, event_minutes, new_findings
from sinks.clickhouse.rebuild_fill import (
    EVENTS_AT_ONCE,
    Mismatch,
    compare,
    segments_made,
    write_folded,
    write_from_ledger,
)
from sinks.clickhouse.rebuild_plan import Plan, Run, Wanted, runs_of, segments_between, segments_of
from sinks.clickhouse.rebuild_state import Record, Work
from sinks.clickhouse.schema import require_schema

Report = Callable[[str, str], None]
"""Told of a step, by its name, and of what is going on, in words."""

REPORT_SECONDS: Final = 2.0


class Outcome(Struct, frozen=True):
    """What a rebuild did. ``from_log`` and ``from_ledger`` are segments; ``events`` those counted in them."""

    id: str
    state: Literal["planned", "done", "abandoned", "nothing to do"]
    start: datetime
    end: datetime
    dimensions: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    segments: int = 0
    from_log: int = 0
    from_ledger: int = 0
    events: int = 0
    differences: tuple[Difference, ...] = ()
    seconds: float = 0.0


@dataclass(slots=True)
class _Totals:
    segments: int = 0
    by_source: dict[str, int] = field(default_factory=lambda: {"log": 0, "ledger": 0})
    events: int = 0


def open_for_writing(settings: Settings, cure: str = "stop it, rebuild, and start it again") -> Client:
    """A client that may change tables; ``cure`` are the words for who has a worker in the way.

    Raises:
        StoreError: a worker has the chdb directory open.
    """
    directory = parse_url(settings.clickhouse.url).directory
    endpoint = find_endpoint(directory) if directory else None
    if endpoint is not None:
        raise StoreError(f"the worker at {endpoint.url} has {directory} open; {cure}")
    client = connect(settings.clickhouse)
    require_schema(client, settings.clickhouse)
    return client


def plan(client: Client, settings: Settings, start: datetime, end: datetime, wanted: Wanted, keep_old: bool) -> Plan:
    """What is to be made anew, and where from.

    Raises:
        BrokerError: Kafka is asked for and away, or has not what ``wanted`` names.
    """
    from_ms, to_ms = (round(moment.timestamp() * 1000) for moment in (start, end))
    segments = segments_between(client, from_ms, to_ms)
    bounds = {}
    if wanted != "ledger" and segments:
        with LogReader(settings.kafka) as reader:
            bounds = reader.bounds({item.log for item in segments})
    dimensions = Rules.of(settings.fold, 0).dimensions
    return Plan(from_ms, to_ms, dimensions, runs_of(segments, bounds, wanted), keep_old)


def planned(client: Client, found: Plan) -> Outcome:
    """What a plan would do."""
    totals = _Totals()
    for run in found.runs:
        for item in segments_of(client, run):
            _count(totals, run, item)
    return _outcome("", "planned" if found.runs else "nothing to do", found, totals, (), 0.0)


def begin(client: Client, found: Plan) -> Work:
    """Claim a new rebuild."""
    id_ = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{time.time_ns() % 10**6:06d}"
    return Work.claim(client, id_, found)


def go_on(client: Client, record: Record) -> Work:
    """Take over a rebuild that was killed.

    Raises:
        StoreError: its owner lives.
    """
    refuse_living(record)
    return Work.take_over(client, record)


def refuse_living(record: Record) -> None:
    """Refuse to touch a rebuild that somebody works on.

    Raises:
        StoreError: its owner lives.
    """
    if record.owner_lives:
        raise StoreError(
            f"rebuild {record.id} is being worked on by {record.owner}, heard of {record.silent_seconds:.0f} s ago;"
            " wait for it"
        )


def abandon(client: Client, record: Record) -> None:
    """Drop what a rebuild made; the live tables stay as they are.

    Raises:
        StoreError: it is being exchanged, or its owner lives.
    """
    if record.state == "exchanging":
        raise StoreError(f"rebuild {record.id} has begun to exchange tables and can only be finished: --resume")
    work = go_on(client, record)
    shadow.drop(client)
    work.finish("abandoned", "by request")


def run(client: Client, settings: Settings, work: Work, report: Report) -> Outcome:
    """Do what is left of a rebuild.

    Raises:
        AuditError: other numbers came out than the receipts say; nothing was exchanged.
        BrokerError, StoreError: Kafka or ClickHouse is away; ``--resume`` goes on.
    """
    began = time.monotonic()
    with work.beating(lambda: connect(settings.clickhouse)):
        found: tuple[Difference, ...] = ()
        if work.record.state == "building":
            _build(client, settings, work, report)
            report("check", "the audit judges the shadow tables")
            for finding in new_findings(client, work.record.plan):
                raise _abandoned(client, work, Mismatch(finding.where, finding.words))
            found = tuple(differences(client, work.record.plan))
            work.confirm()
            report("exchange", "the shadow tables take the places of the live ones")
            work.update(state="exchanging")
        _exchange(client, settings, work, report)
        totals = _totals(client, work)
        work.finish("done", f"{totals.segments} segments, {len(found)} differences")
    return _outcome(work.record.id, "done", work.record.plan, totals, found, time.monotonic() - began)


def after_exchange(client: Client, settings: Settings, first_minute: int, last_minute: int) -> None:
    """Recompute hours and days: ``minutes`` and ``ledger`` were made anew from one minute, in Unix seconds, to another.

    In a new epoch, since damage that was mended may have been rows too many. May be called again.
    """
    raise_epoch(client, "rebuild")
    start, end = (datetime.fromtimestamp(minute, UTC) for minute in (first_minute, last_minute + 60))
    periods = settings.periods
    now = datetime.now(UTC)
    recompute(client, start, end, periods.time_zone, now, grace_seconds=periods.grace_seconds)


def _build(client: Client, settings: Settings, work: Work, report: Report) -> None:
    found = work.record.plan
    progress = work.record.progress
    if not progress.shadows:
        report("tables", f"{', '.join(found.tables)}, beside the live ones")
        work.update(progress=msgspec.structs.replace(progress, shadows=shadow.create(client, found)))
    report("forward", "what the workers write goes into both from now on")
    shadow.forward(client, found)
    for table in found.tables:
        progress = work.record.progress
        if table not in progress.copied:
            report("copy", f"{table}: the rows of all other segments")
            work.confirm()
            shadow.copy(client, found, table)
            work.update(progress=msgspec.structs.replace(progress, copied=(*progress.copied, table)))
    _fill(client, settings, work, report)


def _fill(client: Client, settings: Settings, work: Work, report: Report) -> None:
    found = work.record.plan
    segments = {run: segments_of(client, run) for run in found.runs}
    whole = sum(len(items) for items in segments.values())
    made = segments_made(client, work.record.id)
    done = len(made)
    told = time.monotonic()
    report("fill", f"{done:,} of {whole:,} segments are there")

    def progress(more: int) -> None:
        nonlocal done, told
        done += more
        if time.monotonic() - told > REPORT_SECONDS:
            told = time.monotonic()
            work.confirm()
            report("fill", f"{done:,} of {whole:,} segments")

    for run_, items in segments.items():
        left = [item for item in items if (item.log.topic_id, item.log.partition, item.segment) not in made]
        if left:
            fill = _fill_from_log if run_.source == "log" else _fill_from_ledger
            fill(client, settings, work, left, progress)


def _fill_from_log(
    client: Client, settings: Settings, work: Work, segments: list[Receipt], progress: Callable[[int], None]
) -> None:
    """Fold segments that follow each other, under the rules of their receipts but with the wanted dimensions."""
    first = segments[0]
    dimensions = work.record.plan.dimensions
    opened = {item.segment: msgspec.structs.replace(item.rules, dimensions=dimensions) for item in segments}
    catalogues: dict[int, Catalogue] = {}
    for rules in opened.values():
        if rules.catalogue_version not in catalogues:
            catalogues[rules.catalogue_version] = stored_catalogue(client, rules.catalogue_version)
    depth = first.rules.memory_segments
    # From the shadow: there the places of the segments before stand as the log has them, whatever was damaged.
    before = memory_before(client, first.log, first.segment, depth, _coordinates(work.record.plan))
    fold = PartitionFold(
        first.log, first.segment, opened, opened[segments[-1].segment], catalogues, Memory(before, depth)
    )
    with LogReader(settings.kafka) as reader:
        reader.seek(first.log, first.segment)
        for item in segments:
            while fold.next_offset < item.next_offset:
                fold.add(reader.read(item.next_offset))
            flush = fold.take()
            came_out = {receipt.segment: receipt for receipt in flush.receipts}.get(item.segment)
            wrong = compare(item, came_out or Receipt(item.log, item.segment, item.segment, item.rules))
            if wrong is not None:
                raise _abandoned(client, work, wrong)
            write_folded(client, work.record.id, item, flush)
            progress(1)


def _fill_from_ledger(
    client: Client, settings: Settings, work: Work, segments: list[Receipt], progress: Callable[[int], None]
) -> None:
    at_once: list[Receipt] = []
    for item in segments:
        at_once.append(item)
        if sum(one.accepted for one in at_once) >= EVENTS_AT_ONCE or item is segments[-1]:
            wrong = write_from_ledger(client, work.record.id, at_once, work.record.plan.dimensions)
            if wrong is not None:
                raise _abandoned(client, work, wrong)
            progress(len(at_once))
            at_once = []


def _exchange(client: Client, settings: Settings, work: Work, report: Report) -> None:
    found = work.record.plan
    for table, uuid in work.record.progress.shadows.items():
        work.confirm()
        shadow.exchange(client, table, uuid)
        report("exchanged", table)
    report("catch up", "what was on its way into the old tables")
    shadow.catch_up(client, found, work.record.progress.began_ms)
    report("periods", "what is derived from the tables")
    span = event_minutes(client, found)
    if span is not None:
        after_exchange(client, settings, *span)
    report("drop", "the old tables" if not found.keep_old else "nothing: the old tables stay, as *_before_rebuild")
    if found.keep_old:
        shadow.keep(client, found)
    shadow.drop(client)


def _abandoned(client: Client, work: Work, wrong: Mismatch) -> AuditError:
    """Drop the shadows of a rebuild that would falsify the totals."""
    shadow.drop(client)
    words = f"{wrong.where}: {wrong.words}"
    work.finish("abandoned", words)
    return AuditError(
        f"{words}; nothing was exchanged. If the segments before it are damaged too, begin earlier: see docs/rebuild.md"
    )


def _coordinates(found: Plan) -> str:
    return "coordinates" + (shadow.SUFFIX if "coordinates" in found.tables else "")


def _totals(client: Client, work: Work) -> _Totals:
    totals = _Totals()
    for run_ in work.record.plan.runs:
        for item in segments_of(client, run_):
            _count(totals, run_, item)
    return totals


def _count(totals: _Totals, run_: Run, item: Receipt) -> None:
    totals.segments += 1
    totals.by_source[run_.source] += 1
    totals.events += item.accepted


def _outcome(
    id_: str,
    state: Literal["planned", "done", "nothing to do"],
    found: Plan,
    totals: _Totals,
    different: tuple[Difference, ...],
    seconds: float,
) -> Outcome:
    return Outcome(
        id=id_,
        state=state,
        start=datetime.fromtimestamp(found.from_ms / 1000, UTC),
        end=datetime.fromtimestamp(found.to_ms / 1000, UTC),
        dimensions=found.dimensions,
        tables=found.tables,
        segments=totals.segments,
        from_log=totals.by_source["log"],
        from_ledger=totals.by_source["ledger"],
        events=totals.events,
        differences=different,
        seconds=seconds,
    )
