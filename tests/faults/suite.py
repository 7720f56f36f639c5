"""All scenarios, and the running of their rows on one Kafka and one ClickHouse."""

import logging
import random
import shutil
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tests.faults import (
    scenarios_catalogue,
    scenarios_clickhouse,
    scenarios_kafka,
    scenarios_log,
    scenarios_machine,
    scenarios_workers,
)
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.run import FaultRun, scaled_settings
from tests.faults.scenario import Row, Scenario, Skipped
from tests.faults.servers import Keeper, TwoDoorKafka
from tests.support import ClickHouseServer
from tests.support.ports import free_port

SCENARIOS: Final[tuple[Scenario, ...]] = (
    *scenarios_workers.SCENARIOS,
    *scenarios_kafka.SCENARIOS,
    *scenarios_clickhouse.SCENARIOS,
    *scenarios_log.SCENARIOS,
    *scenarios_catalogue.SCENARIOS,
    *scenarios_machine.SCENARIOS,
)
_LOG_CHARACTERS: Final = 3_000


class Outcome(Struct, frozen=True, kw_only=True):
    """A row of the table and of build/faults.json.

    ``events`` are those in the log, of any kind. ``lost`` and ``duplicated`` count over all books; see
    :class:`tests.faults.compare.Difference`. ``words`` say what was wrong, ``skipped`` why nothing was done.
    """

    fault: str
    crash_point: str
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    seconds_to_recover: float = 0.0
    ok: bool = True
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    repeats: int = 0
    clickhouse_restarts: int = 0
    seconds: float = 0.0
    skipped: str = ""
    words: list[str] = []


@dataclass(slots=True)
class Servers:
    """The servers of a run, with their proxies."""

    kafka: TwoDoorKafka
    clickhouse: ClickHouseServer
    keeper: Keeper
    kafka_proxy: Proxy
    clickhouse_proxy: Proxy


@contextmanager
def servers() -> Iterator[Servers]:
    """Start Kafka, ClickHouse and the proxies; end them.

    Raises:
        ServerUnavailable: this machine cannot run them.
    """
    with ExitStack() as stack:
        kafka = stack.enter_context(TwoDoorKafka())
        clickhouse = stack.enter_context(ClickHouseServer())
        yield Servers(
            kafka,
            clickhouse,
            Keeper(clickhouse),
            stack.enter_context(Proxy(kafka.proxy_port, kafka.proxied_port)),
            stack.enter_context(Proxy(free_port(), clickhouse.native_port)),
        )


def quiet_clients() -> None:
    """The clients of this process log each attempt to reach a server that is away on purpose."""
    for name in ("clickhouse_driver", "kafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def rows(only: str = "") -> list[tuple[Scenario, str]]:
    """All rows whose fault or crash point contains ``only``."""
    found = [(scenario, point) for scenario in SCENARIOS for point in scenario.points or ("",)]
    return [(scenario, point) for scenario, point in found if only.lower() in f"{scenario.fault}: {point}".lower()]


@contextmanager
def playground(on: Servers, settings: Mapping[str, object], point: str, seed: int, events: int) -> Iterator[Row]:
    """Topics, a database and a group of their own, for one row; cleaned up at the end, whatever is left.

    The directory with the workers' logs stays if the block raises.
    """
    name = f"faults_{uuid.uuid4().hex[:8]}"
    directory = Path(tempfile.mkdtemp(prefix="xidmet-faults-"))
    on.clickhouse.execute(f"CREATE DATABASE {name}")
    run = FaultRun(on.kafka.bootstrap, on.clickhouse.database_url(name), directory, **settings)
    kafka = run.settings.kafka
    load = Load(kafka.bootstrap, kafka.events_topic, kafka.partitions, seed, name)
    rng = random.Random(seed)
    row = Row(on.kafka, on.clickhouse, on.keeper, on.kafka_proxy, on.clickhouse_proxy, run, load, rng, point, events)
    try:
        run.migrate()
        yield row
    finally:
        _clean_up(on, row, name)
    shutil.rmtree(directory, ignore_errors=True)


def run_row(on: Servers, scenario: Scenario, point: str, seed: int, events: int) -> Outcome:
    """Play one row and account for it; never raises for what goes wrong in it."""
    began = time.monotonic()
    restarts = on.keeper.restarts
    settings = scaled_settings(events) | dict(scenario.settings)
    outcome = Outcome(fault=scenario.fault, crash_point=point)
    try:
        with playground(on, settings, point, seed, events) as row:
            outcome = _play(on, scenario, row)
            if not outcome.ok:
                raise _KeepLogs
    except _KeepLogs:
        pass
    except Exception as error:
        outcome = replace(outcome, ok=False, words=[*outcome.words, f"clean-up: {error}", traceback.format_exc()])
    return replace(
        outcome,
        seconds=round(time.monotonic() - began, 1),
        clickhouse_restarts=on.keeper.restarts - restarts,
    )


class _KeepLogs(Exception):
    """A row was not well."""


def _play(on: Servers, scenario: Scenario, row: Row) -> Outcome:
    try:
        if scenario.keep:
            on.keeper.begin()
        scenario.play(row)
        if row.difference is None:
            row.settle()
            on.keeper.end()
        difference = row.difference or row.compare()
    except Skipped as reason:
        return Outcome(fault=scenario.fault, crash_point=row.point, skipped=str(reason))
    except Exception as error:
        words = [*traceback.format_exception_only(error), traceback.format_exc()]
        return _outcome(scenario, row, 0, 0, words + log_tails(row.run.directory))
    words = difference.words if difference.nothing else difference.words + log_tails(row.run.directory)
    return _outcome(scenario, row, difference.lost, difference.duplicated, words)


def _outcome(scenario: Scenario, row: Row, lost: int, duplicated: int, words: list[str]) -> Outcome:
    truth = row.truth
    return Outcome(
        fault=scenario.fault,
        crash_point=row.point,
        events=truth.events if truth else 0,
        lost=lost,
        duplicated=duplicated,
        seconds_to_recover=round(row.seconds_to_recover, 1),
        ok=not (lost or duplicated or words),
        accepted=truth.accepted if truth else 0,
        duplicates=truth.duplicates if truth else 0,
        rejected=len(truth.rejected) if truth else 0,
        repeats=truth.repeats if truth else 0,
        words=words,
    )


def _clean_up(on: Servers, row: Row, database: str) -> None:
    """Whatever the scenario left: workers, frozen proxies, stopped servers, topics, tables."""
    row.run.stop()
    on.kafka_proxy.heal()
    on.clickhouse_proxy.heal()
    on.keeper.end()
    on.clickhouse.resume()
    on.clickhouse.start()
    on.kafka.resume()
    on.kafka.start()
    on.clickhouse.execute(f"DROP DATABASE IF EXISTS {database} SYNC")
    kafka = row.run.settings.kafka
    with on.kafka.admin() as admin:
        there = set(admin.list_topics())
        for topic in (kafka.events_topic, kafka.rejected_topic):
            if topic in there:
                admin.delete_topics([topic])


def log_tails(directory: Path) -> list[str]:
    """The end of each worker's log."""
    return [
        f"--- the end of {path}\n{path.read_text(errors='replace')[-_LOG_CHARACTERS:]}"
        for path in sorted(directory.glob("worker-*.log"))
    ]
