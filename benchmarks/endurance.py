"""Measures whether a worker stays small and its cost linear while it eats a long backlog.

A topic is filled with events, one a message, of the same shape as in the comparison. Then a worker at its default
settings eats it. Once a second its resident memory, its CPU time, that of both servers, and the events that the
receipts vouch for are read. Reported are the peak, the slope of the memory over the second half of the backlog (least
squares, MB for a million events), and at each mark the events a second and the CPU seconds for a million events, from
the start and of the last million before it. Wall clock depends on what else the machine does; CPU seconds hardly.

Everything is written to a JSON file; servers and data are removed at the end. 20 million events need 12 GB of disk.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare.catalogue import write_catalogue
from benchmarks.compare.load import Load
from benchmarks.rig.events import fill
from benchmarks.rig.figures import at, furthest_apart, slope
from benchmarks.rig.parts import parts_of
from benchmarks.rig.processes import Sample, Watched, memory_mb, watching
from benchmarks.rig.stage import Stage, need_disk, pressure, stage, start_worker
from tests.support.pipeline_run import PipelineRun
from tests.support.waiting import wait_until

MARKS = (2_000_000, 10_000_000, 20_000_000)
BOUND_MB = 400.0
GROWTH_MB = 20.0
APART = 0.10
# Of log, ledger, coordinates and minutes, and of merges under way.
_DISK_BYTES = 600
# Slower than this is no measurement.
_LEAST_RATE = 5_000.0
_LAST = 1_000_000


def eat(stage_: Stage, run: PipelineRun, events: int) -> tuple[Watched, dict[str, Any]]:
    """Run a worker until all events are written; what was sampled, and its peak."""
    worker = start_worker(run)

    def written() -> int:
        return int(run.query("SELECT sum(events) FROM segments")[0][0])

    waited = pressure()
    with watching(worker.pid, stage_.pids(), written) as watched:

        def done() -> bool:
            if worker.poll() is not None:
                raise RuntimeError(f"the worker ended with {worker.returncode}:\n{run.logs()}")
            if watched.looks.error is not None:
                raise watched.looks.error
            return bool(watched.samples) and watched.samples[-1].done >= events

        wait_until(done, events / _LEAST_RATE + 120, f"{events} events to be written", every=0.2)
    peak = memory_mb(worker.pid)[1]
    share = (pressure() - waited) / (watched.samples[-1].at - watched.samples[0].at)
    worker.terminate()
    worker.wait(120)
    return watched, {"peak_rss_mb": round(peak, 1), "cpu_pressure": round(share, 3)}


def judge(samples: Sequence[Sample], events: int, marks: Sequence[int]) -> dict[str, Any]:
    """Figures of what was sampled, which begins before the first event and ends with the last."""
    # The worker's start is no part of it: from the last look before anything was written.
    first = max(0, next(place for place, sample in enumerate(samples) if sample.done) - 1)
    samples = samples[first:]
    time_at = [(float(sample.done), sample.at) for sample in samples]
    cpu_at = {name: [(float(sample.done), sample.cpu_s[name]) for sample in samples] for name in samples[0].cpu_s}
    half = [(sample.done / 1e6, sample.rss_mb) for sample in samples if sample.done >= events / 2]
    growth = slope(half)
    found: dict[str, Any] = {
        "rss_slope_mb_per_million": round(growth, 2),
        "growth_mb": round(growth * events / 2e6, 1),
        "marks": {},
    }
    for mark in marks:
        last = max(0.0, mark - _LAST)
        found["marks"][mark] = {
            "events_per_s": round(mark / (at(time_at, mark) - samples[0].at)),
            "events_per_s_last_million": round((mark - last) / (at(time_at, mark) - at(time_at, last))),
            "rss_mb": round(at([(float(sample.done), sample.rss_mb) for sample in samples], mark), 1),
            "cpu_s_per_million": {
                name: round((at(points, mark) - points[0][1]) / mark * 1e6, 3) for name, points in cpu_at.items()
            },
            "cpu_s_per_million_last": {
                name: round((at(points, mark) - at(points, last)) / (mark - last) * 1e6, 3)
                for name, points in cpu_at.items()
            },
        }
    of = found["marks"].values()
    found["apart"] = {
        "events_per_s": round(furthest_apart([one["events_per_s"] for one in of]), 3),
        "cpu_s_per_million_worker": round(furthest_apart([one["cpu_s_per_million"]["worker"] for one in of]), 3),
    }
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Fill, eat, judge."""
    marks = sorted({mark for mark in MARKS if mark < options.events} | {options.events})
    need_disk(options.directory, options.events * _DISK_BYTES / 1e9 + 1)
    flags = dict(flag.split("=", 1) for flag in options.set)
    settings = {name.replace(".", "__"): value for name, value in flags.items()}
    with stage(options.directory) as stage_:
        settings["catalogue__path"] = write_catalogue(stage_.directory / "catalogue.json")
        with stage_.pipeline("endurance", **settings) as run:
            kafka = run.settings.kafka
            load = Load(options.events, time.time_ns() // 1_000_000)
            filled = fill(kafka.bootstrap, kafka.events_topic, (block.values for block in load.blocks()))
            print(f"{options.events:,} events written to Kafka in {filled:.0f} s", file=sys.stderr, flush=True)
            watched, found = eat(stage_, run, options.events)
            report = run.audit()
            found["findings"] = len(report.findings)
            found["ledger"] = report.ledger
            seconds = watched.samples[-1].at - watched.samples[0].at
            found["parts"] = parts_of(stage_.clickhouse, "endurance", seconds)
    found = {
        "events": options.events,
        "cores": os.cpu_count(),
        "fill_seconds": round(filled, 1),
        **judge(watched.samples, options.events, marks),
        **found,
        "samples": [
            [round(sample.at - watched.samples[0].at, 1), sample.done, round(sample.rss_mb, 1)]
            for sample in watched.samples
        ],
    }
    found["met"] = {
        "small": found["peak_rss_mb"] < BOUND_MB,
        "does_not_grow": found["growth_mb"] < GROWTH_MB,
        "linear": found["apart"]["cpu_s_per_million_worker"] <= APART,
        "counted": found["findings"] == 0 and found["ledger"] == options.events,
    }
    return found


def show(found: dict[str, Any]) -> None:
    """The table for people."""
    print(f"{found['events']:,} events, one a message, filled in {found['fill_seconds']:.0f} s")
    print(f"memory of the worker: {found['peak_rss_mb']:.0f} MB at its peak (bound {BOUND_MB:.0f}),", end=" ")
    print(f"slope over the second half {found['rss_slope_mb_per_million']:+.2f} MB for a million events,", end=" ")
    print(f"that is {found['growth_mb']:+.0f} MB (bound {GROWTH_MB:.0f})")
    print(f"{'':39}  CPU seconds for a million events")
    print(f"{'events':>12} {'events/s':>9} {'last M':>8} {'MB':>6}", end=" ")
    print(f"{'worker':>9} {'last M':>7} {'clickhouse':>11} {'kafka':>6}")
    for mark, one in found["marks"].items():
        cpu, last = one["cpu_s_per_million"], one["cpu_s_per_million_last"]
        print(
            f"{mark:>12,} {one['events_per_s']:>9,} {one['events_per_s_last_million']:>8,} {one['rss_mb']:>6.0f}"
            f" {cpu['worker']:>9.2f} {last['worker']:>7.2f} {cpu['clickhouse']:>11.2f} {cpu['kafka']:>6.2f}"
        )
    apart = found["apart"]
    print(
        f"furthest apart: events/s {apart['events_per_s']:.1%}, CPU seconds {apart['cpu_s_per_million_worker']:.1%};"
        f" something waited for a CPU {found['cpu_pressure']:.0%} of the time"
    )
    for table, one in found["parts"].items():
        print(
            f"{table:12} {one['created_per_minute']:>7.1f} parts a minute, {one['merges_per_minute']:>6.1f} merges"
            f" a minute, {one['active']:>4} active at the end"
        )
    print(", ".join(f"{name.replace('_', ' ')}: {'yes' if met else 'NO'}" for name, met in found["met"].items()))


def main() -> int:
    """Run it; 1 if the worker grew, was too large, became slower, or counted wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000_000, help="length of the backlog (default 20000000)")
    parser.add_argument("--set", action="append", default=[], help="a setting of the worker, section.key=value")
    parser.add_argument("--directory", type=Path, help="where servers keep their data meanwhile")
    parser.add_argument("--out", type=Path, default=Path("build/endurance.json"), help="file (build/endurance.json)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    found = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1), "utf-8")
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    return 0 if all(found["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
