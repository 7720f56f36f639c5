"""Guards the hot path against a regression: the CPU time of this work tree against that of another commit, in pairs.

The other commit (``--against``, by default the one before) is checked out beside, for the time of the run. In each
round two processes of the same interpreter, one for each tree, fold the same messages, in an order that changes from
round to round. Compared is the CPU time of the process, pair by pair: what else the machine does slows both down alike.
A part is worse if the median ratio is above ``--bound`` and a sign test over the pairs says that this is no chance;
then the exit code is 1. Both trees are measured by this script; a part that one of them does not have is left out,
and said so.

``--instructions`` counts instructions under valgrind instead: slow, of a small load, and nearly the same each time.
"""

import argparse
import gc
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from inspect import signature
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BATCH_HEADERS = (("content-type", b"application/cloudevents-batch+json"),)
CHANCE = 0.05
"""A sign test below this is no chance."""
FOLD = "fold, single"
_BATCH = 100
_POLL = 10_000
_FETCH = 2_000
_FLUSH = 100_000
_SMALL_EVENTS = 2_000
_WARM_EVENTS = 500


# What the verdict is made of


def by_chance(worse: int, pairs: int) -> float:
    """The probability that at least ``worse`` of ``pairs`` are worse if each is so with a half."""
    return sum(math.comb(pairs, count) for count in range(worse, pairs + 1)) / 2.0**pairs


def verdict(ratios: Sequence[float], bound: float) -> tuple[str, str]:
    """(``worse``, ``unsure`` or ``well``, words) for ratios of new to old, a pair each."""
    middle = median(ratios)
    worse = sum(ratio > 1 for ratio in ratios)
    chance = by_chance(worse, len(ratios))
    words = f"{worse} of {len(ratios)} pairs are slower, by chance {chance:.1%}"
    if middle <= bound:
        return "well", f"not above the bound of {bound:g}; {words}"
    if chance >= CHANCE:
        return "unsure", f"above the bound of {bound:g}, but the pairs do not agree: repeat with more rounds; {words}"
    return "worse", f"SLOWER, above the bound of {bound:g}; {words}"


# What is measured, in a process of its own: only this script and the packages of one tree


class Load:
    """Messages with one event each, and with a hundred, as they come from polls; the tree's own catalogue and fold."""

    def __init__(self, path: Path, events: int) -> None:
        from pipeline.catalogue import demonstration_catalogue
        from pipeline.fold.records import LogPartition

        self.catalogue = demonstration_catalogue()
        self.log = LogPartition("usage.events", "guard", 0)
        lines = path.read_bytes().splitlines()[:events]
        self.single = [(int(stamp), value) for stamp, _, value in (line.partition(b" ") for line in lines)]
        groups = [self.single[start : start + _BATCH] for start in range(0, len(self.single), _BATCH)]
        self.batch = [(group[-1][0], b"[" + b",".join(value for _, value in group) + b"]") for group in groups]

    def polls(self, messages: Sequence[tuple[int, bytes]], step: int, headers: Any) -> list[Any]:
        """Record batches of ``step`` messages."""
        from pipeline.fold.records import RecordBatch

        return [
            RecordBatch(
                topic=self.log.topic,
                partition=0,
                start_offset=start,
                next_offset=start + len(some),
                high_water_mark=len(messages),
                offsets=range(start, start + len(some)),
                timestamps=[stamp for stamp, _ in some],
                keys=[None] * len(some),
                values=[value for _, value in some],
                headers=[headers] * len(some),
            )
            for start in range(0, len(messages), step)
            for some in [messages[start : start + step]]
        ]

    @property
    def singles(self) -> list[Any]:
        """Polls of messages with one event."""
        return self.polls(self.single, _POLL, ())

    @property
    def batches(self) -> list[Any]:
        """Polls of messages with a hundred events."""
        return self.polls(self.batch, _POLL // _BATCH, BATCH_HEADERS)

    def fold(self, polls: Sequence[Any], write: Callable[[Any], object] = bool) -> None:
        """Fold them all, and take rows as a worker does."""
        from pipeline.fold.fold import PartitionFold
        from pipeline.fold.memory import Memory
        from pipeline.fold.rules import Rules
        from pipeline.settings import FoldSettings

        rules = Rules.of(FoldSettings(), self.catalogue.version)
        catalogues = {self.catalogue.version: self.catalogue}
        fold = PartitionFold(self.log, 0, {}, rules, catalogues, Memory([], rules.memory_segments))
        accepted = 0
        for poll in polls:
            fold.add(poll)
            if fold.pending_events >= _FLUSH or poll is polls[-1]:
                flush = fold.take()
                accepted += len(flush.ledger)
                write(flush)
        if accepted != len(self.single):
            raise SystemExit(f"{accepted} of {len(self.single)} events were accepted")


def parts(load: Load, database: str) -> dict[str, Callable[[], Callable[[], object]]]:
    """Name of a part to what prepares it; that gives what is to be timed."""

    def fold(polls: Sequence[Any]) -> Callable[[], object]:
        return lambda: load.fold(polls)

    def decode(polls: Sequence[Any]) -> Callable[[], object]:
        from pipeline.contract.decode import decode as decode_

        return lambda: [decode_(poll.values, poll.headers) for poll in polls]

    def columns(polls: Sequence[Any]) -> Callable[[], object]:
        from pipeline.contract.columns import to_columns
        from pipeline.contract.decode import decode as decode_

        decoded = [decode_(poll.values, poll.headers) for poll in polls]
        if len(signature(to_columns).parameters) == 1:
            return lambda: [to_columns(one) for one in decoded]
        from pipeline.contract.profiles import Profiles

        profiles = Profiles()
        return lambda: [to_columns(one, profiles) for one in decoded]

    def write(polls: Sequence[Any]) -> Callable[[], object]:
        from pipeline.settings import ClickHouseSettings
        from sinks.clickhouse.client import connect
        from sinks.clickhouse.schema import migrate
        from sinks.clickhouse.writer import write_openings, write_results

        settings = ClickHouseSettings(url=database)
        migrate(settings)
        flushes: list[Any] = []
        load.fold(polls, flushes.append)

        def run() -> None:
            with closing(connect(settings)) as client:
                for flush in flushes:
                    write_openings(client, flush)
                    write_results(client, flush)

        return run

    prepared = {
        FOLD: lambda: fold(load.singles),
        "fold, batch": lambda: fold(load.batches),
        "decode, single": lambda: decode(load.singles),
        "decode, batch": lambda: decode(load.batches),
        "columns": lambda: columns(load.singles),
        "transport": lambda: _transport(load),
    }
    return prepared | ({"write": lambda: write(load.singles)} if database else {})


def _transport(load: Load) -> Callable[[], object]:
    """What the consumer thread makes of the bytes that it fetched: columns, or a record each and then columns."""
    from aiokafka.consumer import fetcher
    from aiokafka.record.default_records import DefaultRecordBatchBuilder
    from faust.types import TP

    from streams.forgiving import read_forgivingly

    read_forgivingly()
    tp = TP(load.log.topic, 0)
    fetches = []
    for start in range(0, len(load.single), _FETCH):
        builder = DefaultRecordBatchBuilder(2, 0, False, -1, 0, 0, 1 << 24)
        for place, (stamp, value) in enumerate(load.single[start : start + _FETCH]):
            builder.append(place, stamp, None, value, [])
        fetches.append(bytes(builder.build()))

    def records(of: Any, fetched: bytes) -> Any:
        return of(tp, fetcher.MemoryRecords(fetched), [], 0, None, None, True, fetcher.READ_COMMITTED)

    def columns(fetched: bytes) -> Sequence[int]:
        taken: Sequence[int] = records(_column_records(), fetched).take().offsets
        return taken

    def single(fetched: bytes) -> Sequence[int]:
        rows = list(records(fetcher.PartitionRecords, fetched))
        lists = [[getattr(row, name) for row in rows] for name in ("timestamp", "key", "value", "headers")]
        return [row.offset for row in rows] if lists else []

    def run() -> None:
        take = single if _column_records() is None else columns
        if sum(len(take(fetched)) for fetched in fetches) != len(load.single):
            raise SystemExit("records are missing")

    return run


def _column_records() -> Any:
    try:
        from streams.fetch import ColumnRecords
    except ModuleNotFoundError:
        return None
    return ColumnRecords


def measure_here(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of each part in this process; why a part is not there."""
    import pipeline

    if Path(options.tree) not in Path(str(pipeline.__file__)).resolve().parents:
        raise SystemExit(f"{pipeline.__file__} is not of {options.tree}")
    # What is imported, compiled and looked up the first time is no part of the hot path.
    small = parts(Load(Path(options.load), min(_WARM_EVENTS, options.events)), options.database)
    found: dict[str, Any] = {}
    for name, prepare in parts(Load(Path(options.load), options.events), options.database).items():
        if options.only and name not in options.only:
            continue
        try:
            small[name]()()
            run = prepare()
            gc.collect()
            gc.freeze()
            began = time.process_time()
            run()
            found[name] = time.process_time() - began
        except (ImportError, AttributeError, TypeError, ValueError, KeyError) as error:
            if name == FOLD:
                raise
            found[name] = f"{type(error).__name__}: {error}"
    return found


# The comparison


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A work tree of a commit in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="xidmet-guard-") as directory:
        tree = Path(directory).resolve() / "tree"
        git("worktree", "add", "--detach", "--quiet", str(tree), revision)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def git(*arguments: str) -> str:
    """Run git in this tree; what it prints."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def write_load(path: Path, events: int) -> None:
    """One event a line, its time stamp before it; made by this tree for both."""
    sys.path.insert(0, str(ROOT))
    from datetime import UTC, datetime, timedelta

    import msgspec

    from pipeline.catalogue import demonstration_catalogue
    from pipeline.generator import Generator

    start = datetime(2026, 3, 2, 8, tzinfo=UTC)
    made = Generator(demonstration_catalogue(), seed=1).events(start, start + timedelta(hours=1), events)
    with path.open("wb") as file:
        for event in made:
            stamp = int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
            file.write(b"%d %s\n" % (stamp, msgspec.json.encode(event)))


def command(tree: Path, load: Path, events: int, database: str, only: Sequence[str] = ()) -> list[str]:
    """What measures one tree."""
    chosen = [word for name in only for word in ("--only", name)]
    place = ["--tree", str(tree), "--load", str(load), "--events", str(events), "--database", database]
    return [sys.executable, str(Path(__file__).resolve()), "--measure", *place, *chosen]


def run_in(tree: Path, words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a measurement with the packages of a tree, and nothing random."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the measurement of {tree} failed:\n{done.stderr[-3000:]}")
    return done


def compare(options: argparse.Namespace, trees: dict[str, Path], load: Path) -> dict[str, Any]:
    """CPU seconds of all rounds, and for each part the ratios and the verdict."""
    with clickhouse(options.clickhouse) as database_of:
        databases = {name: database_of(name) for name in trees}
        rounds: list[dict[str, dict[str, Any]]] = []
        for number in range(options.rounds):
            order = list(trees)
            # By turns, and the first by lot: something that comes and goes must not always meet the same one.
            if (number + options.lot) % 2:
                order.reverse()
            rounds.append(
                {
                    name: json.loads(
                        run_in(
                            trees[name], command(trees[name], load, options.events, databases[name], options.only)
                        ).stdout
                    )
                    for name in order
                }
            )
            print(f"round {number + 1} of {options.rounds}: done", file=sys.stderr)
    found: dict[str, Any] = {}
    for part in rounds[0]["new"]:
        missing = [name for name in trees if not isinstance(rounds[0][name][part], float)]
        if missing:
            found[part] = {"verdict": "left out", "words": f"{missing[0]}: {rounds[0][missing[0]][part]}"}
            continue
        ratios = [one["new"][part] / one["old"][part] for one in rounds]
        word, words = verdict(ratios, options.bound)
        seconds = {name: median(one[name][part] for one in rounds) for name in trees}
        found[part] = {"verdict": word, "words": words, "ratios": ratios, "seconds": seconds}
    return found


def count(options: argparse.Namespace, trees: dict[str, Path], load: Path) -> dict[str, Any]:
    """Instructions an event of each part: with the events, less without."""
    found: dict[str, Any] = {}
    for part in parts(Load.__new__(Load), ""):
        if options.only and part not in options.only:
            continue
        numbers = {}
        for name, tree in trees.items():
            some, none = (_instructions(tree, load, events, part) for events in (_SMALL_EVENTS, _BATCH))
            numbers[name] = None if some is None or none is None else (some - none) / (_SMALL_EVENTS - _BATCH)
            print(f"{part}, {name}: counted", file=sys.stderr)
        new, old = numbers["new"], numbers["old"]
        if new is None or old is None:
            found[part] = {"verdict": "left out", "words": "not in both"}
            continue
        worse = new / old > options.bound
        words = f"{'MORE, above' if worse else 'not above'} the bound of {options.bound:g}"
        found[part] = {
            "verdict": "worse" if worse else "well",
            "words": words,
            "ratios": [new / old],
            "instructions_per_event": numbers,
        }
    return found


def _instructions(tree: Path, load: Path, events: int, part: str) -> int | None:
    """Instructions of a process that runs one part; None if the tree does not have it."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = run_in(tree, [*valgrind, *command(tree, load, events, "", [part])])
    if not isinstance(json.loads(done.stdout)[part], float):
        return None
    (line,) = [line for line in done.stderr.splitlines() if "Collected : " in line]
    return int(line.rpartition(":")[2])


@contextmanager
def clickhouse(wanted: bool) -> Iterator[Callable[[str], str]]:
    """Gives the URL of a database for each name; empty ones if no server is wanted."""
    sys.path.insert(0, str(ROOT))
    from tests.support import ClickHouseServer

    with ClickHouseServer() if wanted else nullcontext() as server:

        def database(name: str) -> str:
            if server is None:
                return ""
            server.execute(f"CREATE DATABASE guard_{name}")
            return str(server.database_url(f"guard_{name}"))

        yield database


def show(content: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(f"this tree against {content['against']}: new to old, {content['unit']}")
    for part, found in content["parts"].items():
        ratios = found.get("ratios")
        figures = f"{median(ratios):.3f}  ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else "-"
        print(f"{part:16} {figures:26} {found['verdict']:9} {found['words']}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD~1", metavar="REV", help="commit to compare with (default HEAD~1)")
    parser.add_argument("--rounds", type=int, default=9, help="pairs (default 9)")
    parser.add_argument("--events", type=int, default=100_000, help="events (default 100000)")
    parser.add_argument("--bound", type=float, default=1.05, help="ratio above which a part is worse (default 1.05)")
    parser.add_argument("--clickhouse", action="store_true", help="also writing, to a real ClickHouse server")
    parser.add_argument("--instructions", action="store_true", help="count instructions under valgrind instead")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="only this part; repeatable")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    for name in ("--tree", "--load", "--database"):
        parser.add_argument(name, default="", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.rounds, options.events) < 1:
        parser.error("all numbers must be at least 1")
    if options.measure:
        print(json.dumps(measure_here(options)))
        return 0
    options.lot = random.randrange(2)
    revision = git("rev-parse", "--verify", f"{options.against}^{{commit}}")
    with checked_out(revision) as old, tempfile.TemporaryDirectory(prefix="xidmet-guard-") as directory:
        load = Path(directory) / "load"
        write_load(load, _SMALL_EVENTS if options.instructions else options.events)
        found = (count if options.instructions else compare)(options, {"old": old, "new": ROOT}, load)
    content = {
        "against": git("log", "-1", "--format=%h %s", revision),
        "unit": "instructions an event" if options.instructions else f"CPU seconds, {options.rounds} pairs",
        "parts": found,
    }
    print(json.dumps(content)) if options.json else show(content)
    return int(any(one["verdict"] == "worse" for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
