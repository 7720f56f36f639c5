"""xidmet, ClickHouse's Kafka engine, Faust, quixstreams and Kafka Streams on one topic, in alternating rounds.

On one Apache Kafka and one ClickHouse; writes build/bench.json and, if asked for, benchmarks/RESULTS.md. A wrong total
of xidmet, or a finding of its audit, fails the run (exit code 1). A peer that fails or cannot be installed is reported
with the reason.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.compare import peers
from benchmarks.compare.catalogue import AGENCIES, SERVICES
from benchmarks.compare.load import Truth
from benchmarks.compare.machine import machine
from benchmarks.compare.report import figures, summary, table
from benchmarks.compare.results import results_page
from benchmarks.compare.servers import ROOT, Servers, filled_servers
from benchmarks.compare.sides.registry import Entry, entries
from benchmarks.compare.writing import PARTITIONS
from tests.support.cache import ServerUnavailable
from tests.support.clickhouse_server import VERSION as CLICKHOUSE_VERSION
from tests.support.kafka_server import kafka_version

_PEER_PACKAGES: Final = ("quixstreams", "confluent-kafka", "msgspec")
_OWN_PACKAGES: Final = ("faust-streaming", "aiokafka", "clickhouse-driver", "numpy")
_STEADY: Final = ROOT / "benchmarks" / "steady.py"
_STEADY_SECONDS: Final = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 1 if xidmet failed."""
    options = _options(arguments)
    began = time.monotonic()
    peers.BUILD.mkdir(exist_ok=True)
    python = _peers_python()
    logs = peers.BUILD / "bench-logs"
    logs.mkdir(exist_ok=True)
    all_entries = entries(options.processes, python, logs)
    unknown = set(options.sides or ()) - set(all_entries)
    if unknown:
        print(f"no side {', '.join(sorted(unknown))}; there are {', '.join(all_entries)}", file=sys.stderr)
        return 2
    chosen = {
        name: entry for name, entry in all_entries.items() if (name in options.sides if options.sides else entry.usual)
    }
    writer = Path(sys.executable) if isinstance(python, str) else python
    prefix_events = min(options.prefix_events, options.events)
    try:
        with filled_servers(writer, options.events, prefix_events, options.compression, options.seed) as servers:
            _say(f"{servers.truth.events:,} events written in {servers.write_seconds:.0f} s")
            rounds = _run(chosen, servers, options, began)
            truth = servers.truth
    except ServerUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    content = _content(options, chosen, truth, prefix_events, rounds, python)
    target = Path(options.output)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1), "utf-8")
    reports = {name: entry.report for name, entry in chosen.items()}
    if options.write_results and not options.sides:
        (ROOT / "benchmarks" / "RESULTS.md").write_text(results_page(content, reports), "utf-8")
    print("\n".join(table(reports)))
    print(json.dumps({key: value for key, value in content.items() if key.startswith("ratio_")}))
    failed = [name for name, entry in chosen.items() if name.startswith("xidmet") and entry.report.failures]
    for name in failed:
        print(f"{name} failed: {chosen[name].report.failures[0]}", file=sys.stderr)
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=2_000_000, help="events (default 2000000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--processes", type=int, default=2, help="of xidmet's run with several (default 2)")
    parser.add_argument(
        "--prefix-events", type=int, default=300_000, help="events for the slow sides (default 300000, or all)"
    )
    parser.add_argument("--compression", choices=("none", "lz4"), default="none", help="of the messages (default none)")
    parser.add_argument("--seed", type=int, default=1, help="of the events (default 1)")
    parser.add_argument("--sides", nargs="+", help="only these (default all)")
    parser.add_argument("--minutes", type=float, default=19.0, help="begin no round that would end later (default 19)")
    parser.add_argument("--limit-seconds", type=float, default=240.0, help="for one side in one round (default 240)")
    parser.add_argument(
        "--steady",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="measure freshness, by benchmarks/steady.py",
    )
    parser.add_argument(
        "--output", default=str(peers.BUILD / "bench.json"), help="JSON file (default build/bench.json)"
    )
    parser.add_argument(
        "--write-results", action="store_true", help="write benchmarks/RESULTS.md, if all sides are run"
    )
    return parser.parse_args(arguments)


def _peers_python() -> Path | str:
    try:
        return peers.venv_python()
    except ServerUnavailable as error:
        _say(f"the Python peers cannot be installed: {error}")
        return str(error)


def _run(chosen: Mapping[str, Entry], servers: Servers, options: argparse.Namespace, began: float) -> int:
    """Run the rounds; how many."""
    longest = 0.0
    for number in range(options.rounds):
        if number and time.monotonic() - began + longest > options.minutes * 60:
            _say(f"no time for more than {number} rounds")
            return number
        started = time.monotonic()
        for name, entry in sorted(
            chosen.items(), key=lambda item: list(chosen).index(item[0]), reverse=number % 2 == 1
        ):
            if entry.side is None:
                continue
            try:
                course = entry.side.run(servers, options.limit_seconds)
            except (RuntimeError, TimeoutError, OSError, EOFError, subprocess.SubprocessError) as error:
                entry.report.rounds.append(None)
                entry.report.failures.append(f"round {number + 1}: {error}")
                _say(f"round {number + 1}: {name}: {str(error)[:300]}")
                continue
            found = figures(course)
            entry.report.rounds.append(found)
            _say(
                f"round {number + 1}: {name}: {found.rate:,.0f} events/s, CPU {sum(found.cpu_per_million.values()):.1f}"
            )
        longest = max(longest, time.monotonic() - started)
    return int(options.rounds)


def _content(
    options: argparse.Namespace,
    chosen: Mapping[str, Entry],
    truth: Truth,
    prefix_events: int,
    rounds: int,
    python: Path | str,
) -> dict[str, Any]:
    """What build/bench.json holds."""
    reports = {name: entry.report for name, entry in chosen.items()}
    three = sum(count for _, count in truth.agencies.most_common(3))
    versions = {
        "python": platform.python_version(),
        "kafka": kafka_version(),
        "clickhouse": CLICKHOUSE_VERSION,
        "kafka-streams": peers.streams_version(),
        **peers.versions_of(Path(sys.executable), _OWN_PACKAGES),
    }
    if isinstance(python, Path):
        versions |= peers.versions_of(python, _PEER_PACKAGES)
    return {
        **summary(reports),
        **_freshness(options.steady),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "load": {
            "events": truth.events,
            "prefix_events": prefix_events,
            "bytes_per_event": truth.value_bytes / truth.events,
            "agencies": AGENCIES,
            "services": SERVICES,
            "partitions": PARTITIONS,
            "compression": options.compression,
            "share_of_three_agencies": three / truth.events,
            "share_of_first_service": truth.services.most_common(1)[0][1] / truth.events,
            "share_of_stages": 1 - truth.uses / truth.events,
        },
        "options": {"rounds": rounds, "events": options.events, "processes": options.processes, "seed": options.seed},
        "machine": machine(),
        "versions": versions,
        "sides": {name: report.as_json() for name, report in reports.items()},
    }


def _freshness(asked: bool) -> dict[str, Any]:
    """From benchmarks/steady.py: the last line that it prints with ``--json`` has both keys."""
    nothing: dict[str, Any] = {"freshness_p50_ms": None, "freshness_p99_ms": None}
    if not asked:
        return nothing | {"freshness_reason": "the run was not asked for it; add --steady"}
    if not _STEADY.exists():
        return nothing | {"freshness_reason": "benchmarks/steady.py is not there"}
    try:
        done = subprocess.run(
            [sys.executable, str(_STEADY), "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_STEADY_SECONDS,
            check=False,
        )
        steady = json.loads(done.stdout.splitlines()[-1])
        return {key: steady[key] for key in nothing} | {"steady": steady, "freshness_reason": ""}
    except (subprocess.TimeoutExpired, IndexError, KeyError, TypeError, ValueError) as error:
        return nothing | {"freshness_reason": f"benchmarks/steady.py failed: {type(error).__name__} {error}"[:300]}


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
