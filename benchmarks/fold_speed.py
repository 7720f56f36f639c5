"""Measures the fold: decoding, checking, folding and taking rows, without Kafka and without ClickHouse.

Two ways of sending the same events alternate, round by round: one event a Kafka message, and ``--batch`` events a
message. Both are cut into polls of about ``--poll`` events, and rows are taken every ``--flush`` events, as a worker
does. One core, one thread.
"""

import argparse
import cProfile
import json
import os
import platform
import pstats
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import msgspec

from pipeline.catalogue import Catalogue, demonstration_catalogue
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.rules import Rules
from pipeline.generator import Generator
from pipeline.settings import FoldSettings

LOG = LogPartition("usage.events", "benchmark", 0)
START = datetime(2026, 3, 2, 8, tzinfo=UTC)
BATCH_HEADERS = (("content-type", b"application/cloudevents-batch+json"),)

# What the profile shows: words, module and function. Each function is called by none of the others.
_STAGES = (
    ("decode JSON", "decode.py", "decode"),
    ("to columns", "columns.py", "to_columns"),
    ("check", "checks.py", "check"),
    ("hash ids", "memory.py", "event_hashes"),
    ("hash users", "memory.py", "user_hashes"),
    ("look for repeats", "memory.py", "first_seen"),
    ("ledger columns", "ledger.py", "ledger_of"),
    ("take rows", "fold.py", "_take_progress"),
)


def polls(events: list[dict[str, Any]], batch: int, poll: int) -> list[RecordBatch]:
    """The events as record batches, ``batch`` events a message and about ``poll`` events a record batch."""
    messages: list[tuple[int, bytes]] = []
    for start in range(0, len(events), batch):
        part = events[start : start + batch]
        stamp = int(datetime.fromisoformat(part[-1]["time"]).timestamp() * 1000)
        messages.append((stamp, msgspec.json.encode(part[0] if batch == 1 else part)))
    step = max(1, poll // batch)
    batches = []
    for start in range(0, len(messages), step):
        some = messages[start : start + step]
        batches.append(
            RecordBatch(
                topic=LOG.topic,
                partition=LOG.partition,
                start_offset=start,
                next_offset=start + len(some),
                high_water_mark=len(messages),
                offsets=range(start, start + len(some)),
                timestamps=[stamp for stamp, _ in some],
                keys=[None] * len(some),
                values=[value for _, value in some],
                headers=[() if batch == 1 else BATCH_HEADERS] * len(some),
            )
        )
    return batches


def fold_all(batches: Sequence[RecordBatch], catalogue: Catalogue, flush: int) -> int:
    """Fold everything; the number of events accepted."""
    rules = Rules.of(FoldSettings(), catalogue.version)
    fold = PartitionFold(LOG, 0, {}, rules, {catalogue.version: catalogue}, Memory([], rules.memory_segments))
    accepted = 0
    for batch in batches:
        fold.add(batch)
        if fold.pending_events >= flush:
            accepted += len(fold.take().ledger)
    return accepted + len(fold.take().ledger)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time both ways in alternating rounds."""
    catalogue = demonstration_catalogue()
    events = list(Generator(catalogue, seed=1).events(START, START + timedelta(hours=1), options.events))
    ways = {"single": polls(events, 1, options.poll), "batch": polls(events, options.batch, options.poll)}
    size = sum(len(value or b"") for batch in ways["single"] for value in batch.values) / len(events)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            began = time.perf_counter()
            accepted = fold_all(ways[name], catalogue, options.flush)
            speeds[name].append(len(events) / (time.perf_counter() - began))
            if accepted != len(events):
                raise SystemExit(f"{name}: {accepted} of {len(events)} events were accepted")
        print(f"round {number + 1} of {options.rounds}: done", file=sys.stderr)
    content: dict[str, Any] = {
        "events": len(events),
        "bytes_per_event": round(size),
        "batch": options.batch,
        "rounds": options.rounds,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "events_per_second": {
            name: {"median": median(all_), "lowest": min(all_), "highest": max(all_)} for name, all_ in speeds.items()
        },
    }
    content["batch_to_single"] = median(speeds["batch"]) / median(speeds["single"])
    if options.profile:
        content["stages"] = {name: stages(batches, catalogue, options.flush) for name, batches in ways.items()}
    return content


def stages(batches: Sequence[RecordBatch], catalogue: Catalogue, flush: int) -> dict[str, float]:
    """Share of the time in each stage, under cProfile, which makes stages of many small calls look larger."""
    profile = cProfile.Profile()
    profile.runcall(fold_all, batches, catalogue, flush)
    statistics: Any = pstats.Stats(profile)
    total = max(cumulative for _, _, _, cumulative, _ in statistics.stats.values())
    spent = dict.fromkeys((words for words, _, _ in _STAGES), 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in statistics.stats.items():
        for words, module, name in _STAGES:
            if function == name and os.path.basename(file) == module and os.sep + "pipeline" + os.sep in file:
                spent[words] += cumulative
    shares = {words: seconds / total for words, seconds in spent.items()}
    return shares | {"the rest": 1 - sum(shares.values())}


def show(content: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(f"{content['events']:,} events of {content['bytes_per_event']} bytes, {content['rounds']} rounds")
    for name, figures in content["events_per_second"].items():
        words = "one event a message" if name == "single" else f"{content['batch']} events a message"
        print(
            f"{words:24} {figures['median']:>10,.0f} events/s"
            f"   (from {figures['lowest']:,.0f} to {figures['highest']:,.0f})"
        )
    print(f"batches to single events: {content['batch_to_single']:.2f}")
    if "stages" in content:
        print(f"\n{'share of time under cProfile':30} {'single':>8} {'batch':>8}")
        for words in content["stages"]["single"]:
            single, batch = (content["stages"][name][words] for name in ("single", "batch"))
            print(f"{words:30} {single:8.1%} {batch:8.1%}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000, help="events (default 200000)")
    parser.add_argument("--batch", type=int, default=100, help="events a message in the second way (default 100)")
    parser.add_argument("--poll", type=int, default=10_000, help="events a record batch, about (default 10000)")
    parser.add_argument("--flush", type=int, default=100_000, help="events between two flushes (default 100000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median is taken (default 5)")
    parser.add_argument("--profile", action="store_true", help="add the share of time of each stage (cProfile)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args(arguments)
    if min(options.events, options.batch, options.poll, options.flush, options.rounds) < 1:
        parser.error("all numbers must be at least 1")
    content = measure(options)
    if options.json:
        print(json.dumps(content))
    else:
        show(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
