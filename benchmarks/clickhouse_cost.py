"""What ClickHouse spends on a backlog, and on what: inserts and merges by table, the worker's other questions.

One topic is filled once. Then each variant, in rounds that alternate, lets workers of a group of its own eat all of it
into a database of its own. A variant is a row of words, which say what differs from the defaults: ``section.key=value``
is a setting of the workers, ``table.setting=value`` one of a MergeTree table, anything with a space a statement that is
run after the migrations. Counted are the CPU seconds of the process of ClickHouse until the receipts vouch for all
events, and until no merge runs any more; how they divide comes from ``query_log`` and ``part_log``, and so do rows
merged for a row inserted and rows a part. Then the audit must agree.

    .venv/bin/python benchmarks/clickhouse_cost.py --variant "" --variant worker.flush_events=50000 --rounds 3
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare.catalogue import write_catalogue
from benchmarks.compare.load import Load
from benchmarks.rig.events import fill
from benchmarks.rig.processes import cpu_seconds, memory_mb
from benchmarks.rig.stage import Stage, need_disk, stage, start_worker
from pipeline.settings import Settings
from tests.support import ClickHouseServer
from tests.support.pipeline_run import PipelineRun
from tests.support.waiting import wait_until

TABLES: Final = ("ledger", "coordinates", "minutes", "receipts", "hours", "days")
_LOGS: Final = (
    "<query_log><database>system</database><table>query_log</table>"
    "<flush_interval_milliseconds>5000</flush_interval_milliseconds></query_log>"
)
_CPU: Final = "(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / 1e6"
_MERGES: Final = (
    f"SELECT table, sumIf({_CPU}, event_type = 'MergeParts'), countIf(event_type = 'MergeParts'),"
    " sumIf(read_rows, event_type = 'MergeParts'), sumIf(rows, event_type = 'NewPart'),"
    " countIf(event_type = 'NewPart') FROM system.part_log"
    " WHERE database = '{database}' AND error = 0 GROUP BY table"
)
_QUERIES: Final = (
    "SELECT multiIf(query_kind = 'Insert' AND query ILIKE '%VALUES%',"
    " 'insert ' || arrayElement(splitByChar(' ', query), 3),"
    f" query_kind = 'Insert', 'hours and days', 'other') AS what, sum({_CPU}) FROM system.query_log"
    " WHERE type = 'QueryFinish' AND current_database = '{database}' GROUP BY what"
)
_BYTES: Final = (
    "SELECT table, sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{database}' GROUP BY table"
)
_LEAST_RATE: Final = 5_000.0
_SETTLED_SECONDS: Final = 3.0


def eat(on: Stage, run: PipelineRun, events: int, processes: int) -> dict[str, Any]:
    """Let a worker eat the topic; CPU seconds and memory of all."""

    def written() -> int:
        return int(run.query("SELECT sum(events) FROM segments")[0][0])

    clickhouse = on.pids()["clickhouse"]
    server = cpu_seconds(clickhouse)
    worker = start_worker(run)
    own = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    pids = [worker.pid] if processes == 1 else [int(pid) for pid in own.read_text("ascii").split()]
    began, folded = time.monotonic(), sum(map(cpu_seconds, pids))

    def done() -> bool:
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode}:\n{run.logs()}")
        return written() >= events

    wait_until(done, events / _LEAST_RATE + 120, f"{events} events to be written", every=0.5)
    found = {
        "seconds": time.monotonic() - began,
        "clickhouse": cpu_seconds(clickhouse) - server,
        "worker": sum(map(cpu_seconds, pids)) - folded,
        "peak_rss_mb": max(memory_mb(pid)[1] for pid in pids),
    }
    worker.terminate()
    worker.wait(120)
    return found


def settle(server: ClickHouseServer) -> None:
    """Wait until no merge has run for a while."""
    quiet_since = time.monotonic()

    def settled() -> bool:
        nonlocal quiet_since
        if server.execute("SELECT count() FROM system.merges") != [(0,)]:
            quiet_since = time.monotonic()
        return time.monotonic() - quiet_since > _SETTLED_SECONDS

    wait_until(settled, 300, "merges to end", every=0.2)


def logged(server: ClickHouseServer, database: str) -> dict[str, Any]:
    """How the cost divides, from the logs."""
    server.execute("SYSTEM FLUSH LOGS")
    found: dict[str, Any] = {}
    for table, cpu, merges, read, inserted, parts in server.execute(_MERGES.format(database=database)):
        if table in TABLES:
            found[f"merge {table}"] = float(str(cpu))
            found[f"merges {table}"] = int(str(merges))
            found[f"rows a part {table}"] = int(str(inserted)) / max(1, int(str(parts)))
            found[f"merged rows {table}"] = int(str(read)) / max(1, int(str(inserted)))
    for what, cpu in server.execute(_QUERIES.format(database=database)):
        found[str(what)] = float(str(cpu))
    for table, size in server.execute(_BYTES.format(database=database)):
        found[f"bytes {table}"] = int(str(size))
    return found


@contextmanager
def database(on: Stage, name: str, words: Sequence[str], **settings: object) -> Iterator[PipelineRun]:
    """A database and workers as the words say."""
    known = Settings.__struct_fields__
    pairs = [word.split("=", 1) for word in words if " " not in word]
    flags = {key.replace(".", "__"): value for key, value in pairs if key.partition(".")[0] in known}
    with on.pipeline(name, **(settings | flags)) as run:
        for key, value in pairs:
            table, _, setting = key.partition(".")
            if table not in known:
                on.clickhouse.execute(f"ALTER TABLE {name}.{table} MODIFY SETTING {setting} = {value}")
        for word in words:
            if " " in word:
                on.clickhouse.execute(word.replace("{database}", name))
        yield run


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds."""
    need_disk(options.directory, options.events * 1_500 / 1e9 + 1)
    variants: list[str] = options.variant or [""]
    rounds: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    with stage(options.directory, _LOGS) as on:
        catalogue = write_catalogue(on.directory / "catalogue.json")
        with on.pipeline("filled") as filled:
            topic = filled.settings.kafka.events_topic
            load = Load(options.events, time.time_ns() // 1_000_000)
            fill(filled.settings.kafka.bootstrap, topic, (block.values for block in load.blocks()))
            for number in range(options.rounds):
                for place, variant in enumerate(variants if number % 2 == 0 else variants[::-1]):
                    name = f"round_{number}_{place}"
                    common = {
                        "kafka__events_topic": topic,
                        "catalogue__path": catalogue,
                        "worker__processes": options.processes,
                    }
                    with database(on, name, [word for word in variant.split("; ") if word], **common) as run:
                        server = cpu_seconds(on.pids()["clickhouse"])
                        found = eat(on, run, options.events, run.settings.worker.processes)
                        settle(on.clickhouse)
                        found["clickhouse, settled"] = cpu_seconds(on.pids()["clickhouse"]) - server
                        found |= logged(on.clickhouse, name)
                        report = run.audit()
                        if report.findings or report.ledger != options.events:
                            raise RuntimeError(f"{variant}: {report.ledger} of {options.events}: {report.findings}")
                    rounds[variant].append(found)
                    print(
                        f"{number + 1} {variant or 'defaults'}: {found['clickhouse']:.1f} s",
                        file=sys.stderr,
                        flush=True,
                    )
                    if options.out:
                        options.out.write_text(json.dumps({"events": options.events, "rounds": rounds}), "utf-8")
    return {"events": options.events, "processes": options.processes, "cores": os.cpu_count(), "rounds": rounds}


_SHOWN: Final = (
    "clickhouse",
    "clickhouse, settled",
    "worker",
    *(f"insert {table}" for table in TABLES[:4]),
    *(f"merge {table}" for table in TABLES[:4]),
    "hours and days",
    "other",
)


def show(content: dict[str, Any]) -> None:
    """The table for people."""
    millions = content["events"] / 1e6
    print(f"{content['events']:,} events; CPU seconds a million events, medians (range)")
    for variant, rounds in content["rounds"].items():
        print(f"\n{variant or 'defaults'}")
        for what in _SHOWN:
            values = sorted(one.get(what, 0.0) / millions for one in rounds)
            print(f"  {what:24} {median(values):6.3f} ({values[0]:.3f} to {values[-1]:.3f})")
        for table in TABLES[:3]:
            rows, again, size, merges = (
                median(one.get(f"{what} {table}", 0.0) for one in rounds)
                for what in ("rows a part", "merged rows", "bytes", "merges")
            )
            print(
                f"  {table:12} {rows:10,.0f} rows a part, merged {again:5.2f} times in {merges:.0f} merges,"
                f" {size / content['events']:6.1f} bytes an event"
            )
        peak, seconds = (median(one[what] for one in rounds) for what in ("peak_rss_mb", "seconds"))
        print(f"  peak {peak:.0f} MB, {seconds:.0f} s")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000_000, help="length of the backlog (default 5000000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median is taken (default 3)")
    parser.add_argument("--processes", type=int, default=2, help="worker.processes (default 2)")
    parser.add_argument("--variant", action="append", help='words with "; " between them; may be repeated')
    parser.add_argument("--directory", type=Path, help="where servers keep their data meanwhile")
    parser.add_argument("--out", type=Path, help="a file for every round, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    content = measure(options)
    if options.json:
        print(json.dumps(content))
    else:
        show(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
