"""Compares three shapes of the ledger in chdb: what they cost to write, to keep and to read.

Decision 0005 rests on it. Every shape gets the same events in the same order, in blocks, as a worker inserts them:
``--repeats`` of them a second time far later in the log, and the last block twice, as after a crash.

A   ReplacingMergeTree by the identity of an event, plus a table ``coordinates`` by place in the log (the one in use);
B   ReplacingMergeTree by place in the log; repeats are removed by whoever reads;
C   AggregatingMergeTree by the identity, with the set of all places where the event stood.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PARTITIONS = 4
SEGMENT = 50_000
DAYS = 30

_COMMON = """
    agency LowCardinality(String),
    service LowCardinality(String),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_hash UInt64"""
_DETAILS = {
    "event_id": ("String", "CODEC(ZSTD(1))"),
    "channel": ("LowCardinality(String)", ""),
    "outcome": ("LowCardinality(String)", ""),
    "duration_ms": ("UInt32", "CODEC(T64, ZSTD(1))"),
    "user_hash": ("UInt64", ""),
    "district": ("LowCardinality(String)", ""),
}
_PLACE = """
    topic_id LowCardinality(String),
    partition UInt32,
    offset UInt64 CODEC(Delta, ZSTD(1)),
    batch_index UInt32 CODEC(T64, ZSTD(1))"""
_TUPLE = "Tuple(topic_id String, partition UInt32, offset UInt64, batch_index UInt32)"
_PLAIN = ",\n".join(f"    {name} {type_} {codec}" for name, (type_, codec) in _DETAILS.items())
_ANY = ",\n".join(
    f"    {name} SimpleAggregateFunction(any, {type_}) {codec}" for name, (type_, codec) in _DETAILS.items()
)
_NAMES = f"agency, service, time, event_hash, {', '.join(_DETAILS)}"
_PLACES = "topic_id, partition, offset, batch_index"
_IDENTITY = "agency, service, time, event_hash"

# Events numbered 0 to N-1 in log order: skewed agencies and services, a day of ``DAYS`` after the other.
_SOURCE = f"""
CREATE TABLE source ENGINE = MergeTree ORDER BY n AS
WITH
    number >= {{first_repeat}} AS repeated,
    if(repeated, toUInt64(number - {{first_repeat}}) * 7, number) AS identity,
    sipHash64(identity) AS random,
    toUInt64(pow((random % 1000) / 1000, 4) * 41) AS agency_number
SELECT
    number AS n,
    concat('agency-', toString(agency_number)) AS agency,
    concat('service-', toString(agency_number), '-', toString(toUInt64(pow((random % 997) / 997, 2) * 10))) AS service,
    toDateTime64('2026-01-01 00:00:00', 3, 'UTC')
        + toIntervalMillisecond(intDiv(identity * {DAYS} * 86400000, {{first_repeat}}) + random % 60000) AS time,
    sipHash64(random, 1) AS event_hash,
    toString(reinterpretAsUUID(concat(reinterpretAsString(random), reinterpretAsString(event_hash)))) AS event_id,
    ['web', 'web', 'web', 'mobile', 'api', 'centre'][random % 6 + 1] AS channel,
    if(random % 100 < 93, 'success', 'failure') AS outcome,
    toUInt32(exp(5.8 + (random % 10007) / 10007 * 2.5)) AS duration_ms,
    sipHash64(random % 120000, 2) AS user_hash,
    if(random % 14 = 0, concat('district-', toString(random % 12)), '') AS district,
    'rHkPdNsHTLWBa4hSGqBk3A' AS topic_id,
    toUInt32(intDiv(number, 1000) % {PARTITIONS}) AS partition,
    intDiv(intDiv(number, 1000), {PARTITIONS}) * 10 + intDiv(number % 1000, 100) AS offset,
    toUInt32(number % 100) AS batch_index
FROM numbers({{events}})
"""


@dataclass(frozen=True)
class Shape:
    """How one shape is made, filled and read. In the texts ``{day}`` is a condition on ``time``."""

    name: str
    tables: dict[str, str]
    fill: dict[str, str]
    queries: dict[str, str]


_SEGMENTS = f"topic_id, partition, intDiv(offset, {SEGMENT} / 100 / 10) AS segment"
_GROUPED = (
    "SELECT agency, channel, count(), avg(duration_ms), uniqCombined64(user_hash) FROM {0} GROUP BY agency, channel"
)
_DEDUPLICATED = (
    f"(SELECT {_IDENTITY}, argMin(channel, offset) AS channel, argMin(duration_ms, offset) AS duration_ms,"
    f" argMin(user_hash, offset) AS user_hash FROM b FINAL {{0}} GROUP BY {_IDENTITY})"
)
_OF_PARTITION = "topic_id = 'rHkPdNsHTLWBa4hSGqBk3A' AND partition = 1 AND offset >= {memory}"

SHAPES = (
    Shape(
        "A",
        {
            "a": f"({_COMMON},\n{_PLAIN},{_PLACE},\n    version UInt64 DEFAULT bitNot(offset) CODEC(Delta, ZSTD(1)))"
            f" ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(time) ORDER BY ({_IDENTITY})",
            "coordinates": f"({_PLACE},\n    event_hash UInt64) ENGINE = ReplacingMergeTree ORDER BY ({_PLACES})",
        },
        {
            "a": f"INSERT INTO a ({_NAMES}, {_PLACES}) SELECT {_NAMES}, {_PLACES}",
            "coordinates": f"INSERT INTO coordinates SELECT {_PLACES}, event_hash",
        },
        {
            "count": "SELECT count() FROM a FINAL",
            "day": _GROUPED.format("a FINAL WHERE {day}"),
            "all": _GROUPED.format("a FINAL"),
            "audit": f"SELECT {_SEGMENTS}, count(), sum(event_hash) FROM coordinates FINAL GROUP BY ALL",
            "memory": f"SELECT offset, event_hash FROM coordinates FINAL WHERE {_OF_PARTITION}",
        },
    ),
    Shape(
        "B",
        {
            "b": f"({_COMMON},\n{_PLAIN},{_PLACE}) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(time)"
            f" ORDER BY ({_PLACES})",
        },
        {"b": f"INSERT INTO b ({_NAMES}, {_PLACES}) SELECT {_NAMES}, {_PLACES}"},
        {
            "count": f"SELECT count() FROM (SELECT {_IDENTITY} FROM b FINAL GROUP BY {_IDENTITY})",
            "day": _GROUPED.format(_DEDUPLICATED.format("WHERE {day}")),
            "all": _GROUPED.format(_DEDUPLICATED.format("")),
            "audit": f"SELECT {_SEGMENTS}, count(), sum(event_hash) FROM b FINAL GROUP BY ALL",
            "memory": f"SELECT offset, event_hash FROM b FINAL WHERE {_OF_PARTITION}",
        },
    ),
    Shape(
        "C",
        {
            "c": f"({_COMMON},\n{_ANY},\n    places SimpleAggregateFunction(groupUniqArrayArray, Array({_TUPLE})))"
            f" ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(time) ORDER BY ({_IDENTITY})",
        },
        {"c": f"INSERT INTO c ({_NAMES}, places) SELECT {_NAMES}, [CAST(({_PLACES}), '{_TUPLE}')]"},
        {
            "count": "SELECT count() FROM c FINAL",
            "day": _GROUPED.format("c FINAL WHERE {day}"),
            "all": _GROUPED.format("c FINAL"),
            "audit": "SELECT place.1 AS topic_id, place.2 AS partition,"
            f" intDiv(place.3, {SEGMENT} / 100 / 10) AS segment, count(), sum(event_hash)"
            " FROM c FINAL ARRAY JOIN places AS place GROUP BY ALL",
            "memory": "SELECT place.3, event_hash FROM c FINAL ARRAY JOIN places AS place"
            " WHERE place.1 = 'rHkPdNsHTLWBa4hSGqBk3A' AND place.2 = 1 AND place.3 >= {memory}",
        },
    ),
)
_UNITS = {
    "insert": "s",
    "ledger": "s",
    "bytes": "bytes an event",
    "count": "s",
    "day": "s",
    "all": "s",
    "audit": "s",
    "memory": "s",
}
_MEANING = {
    "insert": "insert everything, in blocks",
    "ledger": "of that, the ledger without coordinates",
    "bytes": "bytes on disk an event, merged",
    "count": "count distinct events",
    "day": "one day, by agency and channel, repeats removed",
    "all": "the whole ledger, by agency and channel, repeats removed",
    "audit": "events and hashes by segment",
    "memory": "hashes of the last segments of one partition",
}


@dataclass
class Measured:
    """Figures of one shape, a list a measure with one figure a round; ``distinct`` must be the same for all."""

    figures: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _UNITS})
    distinct: int = 0


class Bench:
    """One chdb session in a temporary directory."""

    def __init__(self, directory: str, events: int, repeats: float, block: int) -> None:
        from chdb.session import Session

        self._session = Session(directory)
        self._events = events
        self._block = block
        first_repeat = round(events * (1 - repeats))
        self._distinct = first_repeat
        self.run("CREATE DATABASE bench ENGINE = Atomic")
        self.run("USE bench")
        self.run(_SOURCE.format(first_repeat=first_repeat, events=events))

    def run(self, sql: str) -> str:
        """Run a statement; its answer as tab-separated text."""
        return str(self._session.query(sql, "TSV"))

    def timed(self, sql: str, times: int = 3) -> float:
        """Seconds that a query takes, the median of some times; its answer is thrown away."""
        seconds = []
        for _ in range(times):
            began = time.perf_counter()
            self.run(sql + " FORMAT Null")
            seconds.append(time.perf_counter() - began)
        return median(seconds)

    def measure(self, shape: Shape, into: Measured) -> None:
        """Make, fill, read and drop the tables of a shape."""
        for table, definition in shape.tables.items():
            self.run(f"CREATE TABLE {table} {definition}")
        spent = dict.fromkeys(shape.tables, 0.0)
        starts = [*range(0, self._events, self._block)]
        for start in [*starts, starts[-1]]:
            for table, insert in shape.fill.items():
                began = time.perf_counter()
                self.run(f"{insert} FROM source WHERE n >= {start} AND n < {start + self._block}")
                spent[table] += time.perf_counter() - began
        into.figures["insert"].append(sum(spent.values()))
        into.figures["ledger"].append(next(iter(spent.values())))
        self._wait_for_merges()
        blanks = {
            "day": "time >= '2026-01-15 00:00:00' AND time < '2026-01-16 00:00:00'",
            "memory": str(max(0, self._events // 100 // PARTITIONS - 3 * SEGMENT // 100)),
        }
        for name, sql in shape.queries.items():
            into.figures[name].append(self.timed(sql.format(**blanks)))
        into.distinct = int(self.run(shape.queries["count"]))
        if into.distinct != self._distinct:
            raise SystemExit(f"shape {shape.name} counts {into.distinct} events instead of {self._distinct}")
        size = 0
        for table in shape.tables:
            self.run(f"OPTIMIZE TABLE {table} FINAL")
            answer = self.run(
                f"SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'bench' AND table = '{table}' AND active"
            )
            size += int(answer)
        into.figures["bytes"].append(size / self._events)
        for table in shape.tables:
            self.run(f"DROP TABLE {table} SYNC")

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def _wait_for_merges(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and int(self.run("SELECT count() FROM system.merges")):
            time.sleep(0.1)


def compare(events: int, repeats: float, block: int, rounds: int, say: Callable[[str], None]) -> dict[str, Measured]:
    """Measure all shapes, alternating, in ``rounds`` rounds."""
    measured = {shape.name: Measured() for shape in SHAPES}
    with tempfile.TemporaryDirectory(prefix="xidmet-ledger-") as directory:
        bench = Bench(directory, events, repeats, block)
        try:
            for number in range(rounds):
                for shape in SHAPES[number % len(SHAPES) :] + SHAPES[: number % len(SHAPES)]:
                    bench.measure(shape, measured[shape.name])
                    say(f"round {number + 1} of {rounds}, shape {shape.name}: done")
        finally:
            bench.close()
    return measured


def report(measured: dict[str, Measured], arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians, spreads and ratios to shape A, as plain data."""
    medians = {name: {what: median(all_) for what, all_ in item.figures.items()} for name, item in measured.items()}
    return {
        "events": arguments.events,
        "distinct": measured["A"].distinct,
        "rounds": arguments.rounds,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "median": medians,
        "lowest": {name: {what: min(all_) for what, all_ in item.figures.items()} for name, item in measured.items()},
        "highest": {name: {what: max(all_) for what, all_ in item.figures.items()} for name, item in measured.items()},
        "ratio_to_a": {
            name: {what: value / medians["A"][what] for what, value in figures.items()}
            for name, figures in medians.items()
        },
    }


def show(content: dict[str, Any]) -> None:
    """Print the table for people."""
    print(f"{content['events']:,} events, {content['distinct']:,} distinct, {content['rounds']} rounds, medians")
    print(f"{'':55} {'unit':>14} {'A':>9} {'B':>9} {'C':>9} {'B/A':>6} {'C/A':>6}")
    for what, unit in _UNITS.items():
        values = [content["median"][name][what] for name in "ABC"]
        ratios = [content["ratio_to_a"][name][what] for name in "BC"]
        figures = " ".join(f"{value:9.3f}" for value in values)
        print(f"{_MEANING[what]:55} {unit:>14} {figures} {ratios[0]:6.2f} {ratios[1]:6.2f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000, help="events in all (default 2000000)")
    parser.add_argument("--repeats", type=float, default=0.005, help="share sent again far later (default 0.005)")
    parser.add_argument("--block", type=int, default=100_000, help="events an insert (default 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median is taken (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args(arguments)
    if options.events < 1000 or options.rounds < 1 or options.block < 1000 or not 0 <= options.repeats <= 0.1:
        parser.error("at least 1000 events, blocks of 1000 and one round; repeats from 0 to 0.1")
    measured = compare(
        options.events, options.repeats, options.block, options.rounds, lambda words: print(words, file=sys.stderr)
    )
    content = report(measured, options)
    if options.json:
        print(json.dumps(content))
    else:
        show(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
