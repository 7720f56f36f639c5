"""The measured figures as text: a table for the terminal, and the page benchmarks/QUERIES.md."""

import os
import platform
from typing import Any

LIMIT_MS = 200.0


def machine() -> dict[str, Any]:
    """What the figures were measured on, without names."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def short(number: float) -> str:
    """A count with at most three figures: 950, 12.3 k, 4.56 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number / size < 1000 else f"{number / size:,.0f}{unit}"
    return f"{number:.0f}"


def too_slow(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The questions that must not, and do, take more than 200 ms in one of twenty askings."""
    return [item for item in figures["questions"] if not item["free"] and item["p95_ms"] > LIMIT_MS]


def table(figures: dict[str, Any]) -> str:
    """For the terminal."""
    columns = ("p50 ms", "p95 ms", "cold ms", "cpu ms", "rows", "bytes", "memory")
    head = f"{'question':26} {'view':18} " + " ".join(f"{name:>8}" for name in columns)
    lines = [head]
    for item in figures["questions"]:
        lines.append(
            f"{item['name']:26} {item['view']:18} {item['p50_ms']:8.1f} {item['p95_ms']:8.1f} {_ms(item['cold_ms']):>8}"
            f" {item['cpu_ms']:8.1f}"
            f" {short(item['rows_read']):>8} {short(item['bytes_read']):>8} {short(item['memory_bytes']):>8}"
            f"{'  free-form' if item['free'] else '  TOO SLOW' if item['p95_ms'] > LIMIT_MS else ''}"
        )
    for item in figures["commands"]:
        lines.append(
            f"{item['name']:45} {item['p50_ms']:8.1f} {item['p95_ms']:8.1f} {'':8} {short(item['rows_read']):>8}"
        )
    if figures.get("audit"):
        audit = figures["audit"]
        lines.append(
            f"xidmet audit: {audit['seconds']:.1f} s, {short(audit['rows_read'])} rows in {audit['queries']} queries,"
            f" {audit['repeats']} repeats, {audit['findings']} findings"
        )
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def page(figures: dict[str, Any]) -> str:
    """benchmarks/QUERIES.md."""
    host = figures["machine"]
    sizes = figures["tables"]
    lines = [
        "# Questions to a year",
        "",
        f"Questions of [analysts](../docs/analysts.md) to a year of {short(figures['events'])} events: 45 agencies,"
        " 400 services, as unevenly used as the published figures say. Written by",
        "",
        f"    .venv/bin/python benchmarks/queries.py --events {figures['events']} --write-results",
        "",
        f"on {host['cores']} cores ({host['processor']}), {host['memory_gb']} GB of memory, load {host['load']} before,"
        f" {host['system']}, ClickHouse {figures['clickhouse']}; {figures['repetitions']} askings of each question,"
        " each with another month, week, day, agency or service. `cold` is one asking with no file in memory. Times are"
        " a client's, from sending the question to the last byte of the answer. `cpu` is the processor"
        " time of all threads of the server for one asking. Rows, bytes: median of what ClickHouse"
        " read. Memory: the most that one asking took.",
        "",
        f"Questions that are not to single events and take more than {LIMIT_MS:.0f} ms (p95):"
        f" {', '.join(item['name'] for item in too_slow(figures)) or 'none'}.",
        "",
        "## Totals",
        "",
        *_rows([item for item in figures["questions"] if not item["free"]]),
        "",
        "## Single events",
        "",
        "Free-form questions to the ledger, through the view `events`: they read the events of the period asked for.",
        "",
        *_rows([item for item in figures["questions"] if item["free"]]),
        "",
        "## The program's own",
        "",
        "Times of the Python functions behind the commands and the page, all their queries together.",
        "",
        "| asked | p50 ms | p95 ms | rows read |",
        "|---|---|---|---|",
        *(
            f"| {item['words']} | {_ms(item['p50_ms'])} | {_ms(item['p95_ms'])} | {short(item['rows_read'])} |"
            for item in figures["commands"]
        ),
        "",
    ]
    if figures.get("audit"):
        audit = figures["audit"]
        lines += [
            f"`xidmet audit` took {audit['seconds']:.0f} s, read {short(audit['rows_read'])} rows in"
            f" {audit['queries']} queries, and compared {audit['segments']:,} segments, {audit['hours']:,} hours and"
            f" {audit['days']:,} days; {audit['repeats']:,} repeats, {audit['findings']} findings. All ClickHouse was"
            f" given {audit['server_gb']} GB of memory.",
            "",
        ]
    lines += [
        "## Tables",
        "",
        "| table | rows | bytes on disk | parts |",
        "|---|---|---|---|",
        *(
            f"| `{item['table']}` | {short(item['rows'])} | {short(item['bytes'])} | {item['parts']} |"
            for item in sizes
        ),
        "",
    ]
    return "\n".join(lines)


def _rows(questions: list[dict[str, Any]]) -> list[str]:
    return [
        "| question | view | p50 ms | p95 ms | cold ms | cpu ms | rows read | bytes read | memory |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {item['words']} (`{item['name']}`) | {', '.join(f'`{name}`' for name in item['view'].split(', '))} |"
            f" {_ms(item['p50_ms'])} | {_ms(item['p95_ms'])} | {_ms(item['cold_ms'])} | {_ms(item['cpu_ms'])} |"
            f" {short(item['rows_read'])} | {short(item['bytes_read'])} | {short(item['memory_bytes'])} |"
            for item in questions
        ),
    ]
