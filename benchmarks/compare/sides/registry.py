"""All sides by name, with the words that say what each does; a side whose programs are missing has the reason."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.compare import peers
from benchmarks.compare.catalogue import write_catalogue
from benchmarks.compare.measuring import Course
from benchmarks.compare.report import SideReport
from benchmarks.compare.servers import BATCHES, PREFIX, SINGLE, Servers
from benchmarks.compare.sides import kafka_engine
from benchmarks.compare.sides.counting import Program
from benchmarks.compare.sides.xidmet import Xidmet
from tests.support.cache import ServerUnavailable

_PROGRAMS: Final = "benchmarks.compare.programs"
_COUNT: Final = ("--bootstrap", "{bootstrap}", "--topic", "{topic}", "--events", "{events}")

_FULL_PATH: Final = (
    "decoded, validated against the catalogue, repeats dropped, dead letters on, ledger, coordinates, minutes,"
    " receipts, hours and days; exactly once; totals by the views and the audit checked after each round"
)
_ENGINE: Final = (
    "materialized views into the ledger's columns and engine and into the minutes' dimensions and measures; no"
    " validation against a catalogue, no dead letters, no coordinates, receipts, hours and days, no place in a batch;"
    " at least once: the ledger drops repeats when it merges, the minutes count them twice; totals checked after each"
    " round"
)
_DICTIONARY: Final = "decoded by msgspec into the contract's structures, events and durations added up in a dictionary"
_WINDOWS: Final = (
    "windows of one minute of event time: events and durations by agency and service; no people, no quantiles"
)


class Side(Protocol):
    """What can be run round after round."""

    @property
    def name(self) -> str:
        """Its name in build/bench.json."""

    def run(self, servers: Servers, limit_seconds: float) -> Course:
        """One round."""


@dataclass(slots=True)
class Entry:
    """A side that can be run, or none, and its report."""

    side: Side | None
    report: SideReport
    usual: bool = True
    """Whether it is run unless others are named."""


def entries(processes: int, python: Path | str, directory: Path) -> Mapping[str, Entry]:
    """All sides.

    Args:
        processes: of the run of xidmet with several.
        python: the interpreter of the Python peers, or why there is none.
        directory: takes logs and the catalogue.
    """
    found: dict[str, Entry] = {}
    catalogue = write_catalogue(directory / "catalogue.json")

    def add(side: Side, label: str, work: str, settings: Mapping[str, object] | None = None) -> None:
        found[side.name] = Entry(side, SideReport(label, work, dict(settings or {})))

    def add_if(make: Callable[[], Side], name: str, label: str, work: str, settings: Mapping[str, object]) -> None:
        try:
            add(make(), label, work, settings)
        except ServerUnavailable as error:
            found[name] = Entry(None, SideReport(label, work, unavailable=str(error)))

    for kind, topic, words in (("single", SINGLE, ""), ("batches", BATCHES, ", batches of 100")):
        for number in sorted({1, processes}):
            label = f"xidmet, full path, {number} process{'es' if number > 1 else ''}{words}"
            add(
                Xidmet(f"xidmet_{kind}_{number}", topic, number, catalogue, directory),
                label,
                _FULL_PATH,
                {"settings": "defaults", "processes": number},
            )
        engine = kafka_engine.single() if kind == "single" else kafka_engine.batches()
        add(engine, f"ClickHouse's Kafka engine, best settings found{words}", _ENGINE, engine.settings)
    documented = kafka_engine.documented()
    add(documented, "ClickHouse's Kafka engine as documented (JSONEachRow)", _ENGINE, documented.settings)

    for words, other in kafka_engine.others().items():
        found[other.name] = Entry(
            other, SideReport(f"ClickHouse's Kafka engine, {words}", _ENGINE, dict(other.settings)), usual=False
        )

    on_faust = (sys.executable, "-m", f"{_PROGRAMS}.on_faust")
    add(
        Program("faust_batched", SINGLE, (*on_faust, "batched", *_COUNT)),
        "batched Faust transport, dictionary",
        _DICTIONARY,
        {"broker_max_poll_records": 10_000},
    )
    add(
        Program("faust_stock", PREFIX, (*on_faust, "stock", *_COUNT), prefix=True),
        "stock Faust, dictionary (prefix)",
        _DICTIONARY,
        {"broker_max_poll_records": 10_000},
    )
    for name, way, topic, label, work in (
        ("quixstreams_plain", "plain", SINGLE, "quixstreams, dictionary", _DICTIONARY),
        ("quixstreams_windows", "windows", PREFIX, "quixstreams, tumbling windows with state (prefix)", _WINDOWS),
    ):
        add_if(
            lambda name=name, way=way, topic=topic: _on_quixstreams(name, way, topic, python),  # type: ignore[misc]
            name,
            label,
            work,
            {"auto_offset_reset": "earliest", "others": "defaults"},
        )
    add_if(
        lambda: Program("kafka_streams", SINGLE, peers.streams_command()),
        "kafka_streams",
        "Kafka Streams, tumbling windows with state, 2 threads",
        _WINDOWS,
        {"num.stream.threads": 2, "others": "defaults"},
    )
    return found


def _on_quixstreams(name: str, way: str, topic: str, python: Path | str) -> Program:
    if isinstance(python, str):
        raise ServerUnavailable(python)
    return Program(
        name, topic, (str(python), "-m", f"{_PROGRAMS}.on_quixstreams", way, *_COUNT), prefix=topic == PREFIX
    )
