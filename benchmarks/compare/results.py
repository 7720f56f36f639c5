"""benchmarks/RESULTS.md, written from a run: tables, what each side does, settings, machine, how to repeat it."""

from collections.abc import Mapping
from typing import Any

from benchmarks.compare.report import SideReport, table

_RATIOS = (
    ("ratio_vs_kafka_engine", "xidmet, full path, to the Kafka engine, one event a message"),
    ("ratio_vs_kafka_engine_batched", "xidmet, full path, to the Kafka engine, batches of 100"),
    ("ratio_vs_kafka_engine_as_documented", "xidmet, full path, to the Kafka engine as its documentation has it"),
    ("ratio_vs_stock_faust", "batched Faust transport to stock Faust, the same decoding and dictionary"),
    ("ratio_vs_quixstreams", "batched Faust transport to quixstreams, the same decoding and dictionary"),
    ("full_path_vs_stock_faust", "xidmet, full path, one process, to stock Faust"),
    ("full_path_vs_quixstreams", "xidmet, full path, one process, to quixstreams without state"),
    ("ratio_vs_quixstreams_windows", "xidmet, full path, one process, to windows of quixstreams"),
    ("ratio_vs_kafka_streams_windows", "xidmet, full path, to windows of Kafka Streams, two threads"),
)


def results_page(content: Mapping[str, Any], sides: Mapping[str, SideReport]) -> str:
    """The page, from what build/bench.json holds."""
    load, machine, options = content["load"], content["machine"], content["options"]
    lines = [
        "# Results",
        "",
        f"Written by `make bench` ({_flags(options)}) on {content['date']}; nobody edits it. Figures depend on the",
        "machine; read the ratios.",
        "",
        "## Events",
        "",
        f"{load['events']:,} events of {load['bytes_per_event']:.0f} bytes as JSON, {load['agencies']} agencies,"
        f" {load['services']} services,",
        f"{load['partitions']} partitions, compression {load['compression']}. The leading three agencies have"
        f" {load['share_of_three_agencies']:.0%}, the leading service {load['share_of_first_service']:.0%};",
        f"{load['share_of_stages']:.0%} are stages of applications. All are valid and distinct."
        " `benchmarks/compare/load.py` says how they are drawn.",
        f"Sides marked *prefix* read the first {load['prefix_events']:,} events only, because they are slow.",
        "",
        "## Rates, costs and memory",
        "",
        f"{_rounds(options['rounds'])}; each side once a round, in reversed order every other round. A rate counts",
        "from the first events seen to the last; *from process start* counts starting up as well. Peaks are of the",
        "largest process.",
        "",
        *table(sides),
        "",
        "## Ratios",
        "",
        "Taken within each round, then the median. CPU is that of all processes for an event, theirs to ours, so that",
        "more is better in both; other work on the machine disturbs it less. The line is fitted to all moments when",
        "more had become visible: between the first and the last one, what comes in few large steps looks too fast.",
        "",
        "| ratio | events/s, median | range | by a fitted line, median | CPU, median | range |",
        "|---|---|---|---|---|---|",
    ]
    for key, words in _RATIOS:
        rate, fitted, cpu = (_ratio_cells(content[kind].get(key)) for kind in ("ratios", "fitted_ratios", "cpu_ratios"))
        cells = [*rate, fitted[0], *cpu]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines += ["", "## Freshness", "", _freshness(content), "", "## What each side does", ""]
    lines += ["| side | work |", "|---|---|"]
    lines += [f"| {side.label} | {side.work} |" for side in sides.values()]
    lines += ["", "Merges in ClickHouse that come after the last event was visible are not counted, for any side.", ""]
    lines += ["## Settings", ""]
    for side in sides.values():
        if side.settings:
            chosen = ", ".join(f"`{name}={value}`" for name, value in side.settings.items())
            lines.append(f"- {side.label}: {chosen}")
    failed = [f"- {side.label}: {' '.join(text.split())[:300]}" for side in sides.values() for text in side.failures]
    if failed:
        lines += ["", "## Rounds that failed", "", *failed]
    lines += ["", "## Machine", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in {**machine, **content["versions"]}.items()]
    lines += [
        "",
        "## Repeat it",
        "",
        "```sh",
        "make bench                                                # at most 25 minutes on two cores",
        'make bench ARGS="--rounds 1 --events 200000 --no-steady"  # a quick one',
        'make bench ARGS="--sides xidmet_single_1 kafka_engine_single"',
        "```",
        "",
        "It fetches Apache Kafka, Kafka Streams and ClickHouse once, installs the Python peers into",
        "`build/bench-venv`, and writes `build/bench.json` with every round, and this page.",
        "",
    ]
    return "\n".join(lines)


def _ratio_cells(found: Mapping[str, float] | None) -> tuple[str, str]:
    if found is None:
        return "-", "-"
    return f"{found['median']:.2f}", f"{found['lowest']:.2f} to {found['highest']:.2f}"


def _freshness(content: Mapping[str, Any]) -> str:
    p50, p99 = content["freshness_p50_ms"], content["freshness_p99_ms"]
    if p50 is None or p99 is None:
        return f"Not measured: {content['freshness_reason']}"
    words = f"At 5,000 events/s, sent to visible: p50 {p50:,.0f} ms, p99 {p99:,.0f} ms"
    engine = content.get("steady", {})
    if engine.get("engine_freshness_p50_ms") is not None:
        words += (
            f"; ClickHouse's Kafka engine with its default flush: p50 {engine['engine_freshness_p50_ms']:,.0f} ms,"
            f" p99 {engine['engine_freshness_p99_ms']:,.0f} ms"
        )
    return f"{words} (`benchmarks/steady.py`)."


def _rounds(number: int) -> str:
    return "One round" if number == 1 else f"{number} rounds"


def _flags(options: Mapping[str, Any]) -> str:
    return f"`--rounds {options['rounds']} --events {options['events']}`"
