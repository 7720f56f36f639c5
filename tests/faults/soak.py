"""``python -m tests.faults.soak``: constant load, random faults from a seed, and the same account as of a scenario.

The seed decides which faults come in which order, how long they last and what is between them; the same seed gives the
same sequence. When each of them meets which write is up to the machine. Writes build/soak.json.
"""

import argparse
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tests.faults.memory import Life, watched
from tests.faults.run import SESSION_SECONDS
from tests.faults.scenario import Row
from tests.faults.soak_faults import Fault, Stage, sequence
from tests.faults.suite import Servers, log_tails, playground, quiet_clients, servers

BOUND_MB: Final = 400.0
"""What a worker may take, resident; a worker under the load of this soak stays well below (docs/testing.md)."""

_PARTITIONS: Final = 6
_SETTINGS: Final[dict[str, object]] = {
    "kafka__partitions": _PARTITIONS,
    "kafka__session_timeout_seconds": SESSION_SECONDS,
    "kafka__request_timeout_seconds": 10,
    "fold__segment_records": 200,
    "clickhouse__query_timeout_seconds": 5,
    "worker__flush_seconds": 0.3,
    "worker__max_pending_events": 20_000,
}


class Soak(Struct, frozen=True, kw_only=True):
    """What build/soak.json holds."""

    seed: int
    minutes: float
    events_per_second: float
    events: int
    lost: int
    duplicated: int
    ok: bool
    seconds_to_recover: float
    faults: list[Fault]
    memory_bound_mb: float
    memory: list[Life]
    words: list[str]


@contextmanager
def constant_load(row: Row, events_per_second: float) -> Iterator[None]:
    """Send at a constant rate in a thread; what the broker does not take at once is sent later.

    Raises:
        RuntimeError: something could not be sent at all.
    """
    done = threading.Event()
    failed: list[Exception] = []

    def send() -> None:
        producer = row.load.producer()
        try:
            began, sent = time.monotonic(), 0
            while not done.wait(0.1):
                due = int((time.monotonic() - began) * events_per_second) - sent
                row.load.send_with(producer, due)
                sent += due
            producer.flush(timeout=120)
        except Exception as error:
            failed.append(error)
        finally:
            producer.close()

    thread = threading.Thread(target=send, name="load")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failed:
        raise RuntimeError(f"the load could not be sent: {failed[0]}") from failed[0]


def soak(on: Servers, seed: int, minutes: float, events_per_second: float, bound_mb: float) -> Soak:
    """Run one soak."""
    played: list[Fault] = []
    with playground(on, _SETTINGS, "", seed, 0) as row:
        on.keeper.begin()
        url = row.run.settings.clickhouse.url
        through = url.replace(f":{on.clickhouse.native_port}/", f":{on.clickhouse_proxy.port}/")
        flags: dict[str, Any] = {"clickhouse__url": through}
        stage = Stage(on, row, flags, row.begin(**flags), [])
        stage.start_other()
        stage.start_other()

        def processes() -> list[tuple[str, int]]:
            return [(worker.log.stem, worker.process.pid) for worker in row.run.planned if worker.alive]

        faults = sequence(seed)
        until = time.monotonic() + minutes * 60
        with watched(processes) as lives:
            with constant_load(row, events_per_second):
                while time.monotonic() < until:
                    fault = next(faults)
                    left = until - time.monotonic()
                    print(f"{left:6.0f} s left: {fault.name}, {fault.seconds} s, {fault.point} {fault.nth}", flush=True)
                    played.append(fault)
                    stage.play(fault)
            on.clickhouse_proxy.heal()
            on.kafka_proxy.heal()
            row.fault_ended()
            row.settle()
        on.keeper.end()
        difference = row.compare()
        words = [*difference.words, *(fault for life in lives.values() for fault in life.faults(bound_mb))]
        if not stage.steady.log.exists() or "the worker stopped" in stage.steady.log.read_text(errors="replace"):
            words.append("the worker that nobody touched stopped")
        if words:
            words += log_tails(row.run.directory)
        truth = row.truth
        return Soak(
            seed=seed,
            minutes=minutes,
            events_per_second=events_per_second,
            events=truth.events if truth else 0,
            lost=difference.lost,
            duplicated=difference.duplicated,
            ok=not words,
            seconds_to_recover=round(row.seconds_to_recover, 1),
            faults=played,
            memory_bound_mb=bound_mb,
            memory=list(lives.values()),
            words=words,
        )


def main() -> int:
    """Soak, print what came of it, write the file; 0 if nothing was lost or doubled and memory was bounded."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--seed", type=int, help="decides the sequence of faults; random if not given")
    parser.add_argument("--rate", type=float, default=1_500.0, help="events a second (default 1500)")
    parser.add_argument("--bound", type=float, default=BOUND_MB, help=f"memory of a worker, MiB (default {BOUND_MB:g})")
    parser.add_argument("--json", type=Path, default=Path("build/soak.json"), help="where the results are written")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}, {options.minutes:g} minutes, {options.rate:g} events a second", flush=True)
    quiet_clients()
    with servers() as on:
        done = soak(on, seed, options.minutes, options.rate, options.bound)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_bytes(msgspec.json.format(msgspec.json.encode(done), indent=2))
    peaks = sorted(life.peak for life in done.memory)
    print(
        f"{done.events} events, {done.lost} lost, {done.duplicated} duplicated, {len(done.faults)} faults, recovered in"
        f" {done.seconds_to_recover:g} s; {len(peaks)} workers, at most {peaks[-1]:.0f} MiB; seed {seed}"
    )
    for words in done.words:
        print(f"    {words}")
    return 0 if done.ok else 1


if __name__ == "__main__":
    sys.exit(main())
