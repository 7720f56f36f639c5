"""Counts the parts that a worker makes in ClickHouse, and those that merges take away, in loads that make many.

Each row is a worker of its own process on a database of its own: at a steady rate, and on a backlog that waits when it
starts; at the default settings, and at those that make most parts of all that docs/settings.md allows; with events of
now, and with an import of 36 months, of which each flush makes a part per month in the ledger and in the minutes. What
was created and merged comes from ClickHouse's part_log, active parts are counted twice a second. Refused inserts are
what must not happen; delayed ones are how ClickHouse slows a writer down before that.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare.catalogue import write_catalogue
from benchmarks.compare.load import Load
from benchmarks.rig.events import PARTITIONS, fill, of_months
from benchmarks.rig.parts import parts_of, sampling, troubles
from benchmarks.rig.stage import Stage, pressure, stage, start_worker
from pipeline.producer import connect_producer
from pipeline.settings import FLUSHES_APART_SECONDS
from tests.support.pipeline_run import PipelineRun
from tests.support.waiting import wait_until

MONTHS = 36
_TICK_SECONDS = 0.01
_LEAST_RATE = 1_000.0
_MOST_PARTS: dict[str, object] = {"worker__flush_seconds": FLUSHES_APART_SECONDS, "worker__flush_events": 1}


@dataclass(frozen=True, slots=True)
class Row:
    """One load: ``steady`` or waiting before the worker starts, over so many months (0: of now)."""

    name: str
    steady: bool
    months: int = 0
    settings: dict[str, object] = field(default_factory=dict)


ROWS = (
    Row("steady", True),
    Row("steady, most parts", True, settings=_MOST_PARTS),
    Row("steady, 36 months", True, MONTHS),
    Row("backlog", False),
    Row("backlog, most parts", False, settings=_MOST_PARTS),
    Row("backlog, 36 months", False, MONTHS),
    Row("backlog, 36 months, most parts", False, MONTHS, _MOST_PARTS),
)


@contextmanager
def rate_held(run: PipelineRun, values: list[bytes], rate: float) -> Iterator[threading.Thread]:
    """Send at a rate in a thread, which ends when all is sent."""
    kafka = run.settings.kafka
    producer = connect_producer(kafka.bootstrap, kafka.events_topic, "xidmet-parts", "lz4")

    def send() -> None:
        began, number = time.monotonic(), 0
        while number < len(values):
            due = min(len(values), int((time.monotonic() - began) * rate) + 1)
            for place in range(number, due):
                producer.send(kafka.events_topic, values[place], partition=place % PARTITIONS)
            number = due
            time.sleep(_TICK_SECONDS)
        producer.flush(timeout=60)

    thread = threading.Thread(target=send, name="sender")
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
        producer.close()


def play(on: Stage, row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    events = int(options.rate * options.seconds) if row.steady else options.events
    database = "parts_" + "".join(letter if letter.isalnum() else "_" for letter in row.name)
    load = Load(events, time.time_ns() // 1_000_000, events_per_second=int(options.rate))
    values = [value for block in load.blocks() for value in block.values]
    if row.months:
        values = of_months(values, row.months)
    catalogue = on.directory / "catalogue.json"
    with on.pipeline(database, catalogue__path=catalogue, **row.settings) as run:
        if not row.steady:
            fill(run.settings.kafka.bootstrap, run.settings.kafka.events_topic, [values])
        before, waited = troubles(on.clickhouse), pressure()
        with sampling(on.clickhouse, database) as sampled:
            worker = start_worker(run)
            began = time.monotonic()
            if row.steady:
                with rate_held(run, values, options.rate):
                    pass
            await_all(run, worker, events)
            seconds = time.monotonic() - began
            waited = pressure() - waited
        found = parts_of(on.clickhouse, database, seconds)
        after = troubles(on.clickhouse)
        report = run.audit()
        worker.terminate()
        worker.wait(120)
    for table, active in sampled.tables.items():
        if table in found:
            found[table] |= {"most_active": active.table, "most_active_in_a_partition": active.partition}
    return {
        "events": events,
        "seconds": round(seconds, 1),
        "tables": found,
        **{name: after[name] - before[name] for name in after},
        "cpu_pressure": round(waited / seconds, 3),
        "counted": not report.findings and report.ledger == events,
    }


def await_all(run: PipelineRun, worker: subprocess.Popen[bytes], events: int) -> None:
    """Wait until the receipts vouch for all events."""

    def written() -> bool:
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode}:\n{run.logs()}")
        return bool(run.query("SELECT sum(events) FROM segments")[0][0] >= events)

    wait_until(written, events / _LEAST_RATE + 120, f"{events} events to be written", every=0.2)


def main() -> int:
    """Run it; 1 if ClickHouse refused an insert, or something was counted wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5_000.0, help="events a second of the steady rows (default 5000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the steady rows (default 60)")
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the backlogs (default 1000000)")
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--directory", type=Path, help="where servers keep their data meanwhile")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    found = {}
    with stage(options.directory) as on:
        write_catalogue(on.directory / "catalogue.json")
        for row in ROWS:
            if options.only in row.name:
                found[row.name] = play(on, row, options)
                print(f"{row.name}: {found[row.name]['seconds']:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    return 0 if all(one["counted"] and not one["too_many_parts"] for one in found.values()) else 1


def show(found: dict[str, Any]) -> None:
    """The table for people."""
    print(f"{'':32} {'table':12} {'parts/min':>9} {'merges/min':>10} {'rows/part':>9} {'most active':>11}", end=" ")
    print(f"{'in a month':>10} {'refused':>8} {'delayed':>8}")
    for name, one in found.items():
        for table, figures in one["tables"].items():
            print(
                f"{name:32} {table:12} {figures['created_per_minute']:>9,.0f} {figures['merges_per_minute']:>10,.0f}"
                f" {figures['rows_a_part']:>9,} {figures['most_active']:>11,}"
                f" {figures['most_active_in_a_partition']:>10,} {one['too_many_parts']:>8} {one['delayed_inserts']:>8}"
            )
        if not one["counted"]:
            print(f"{name}: counted WRONGLY")


if __name__ == "__main__":
    sys.exit(main())
