"""Prints the plan of docs/scaling.md from the figures in its first table: what one event costs makes what many need.

Put your own figures into the page, or name one with ``--set``. ``--check`` says whether the plan in the page is the one
of its figures.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
RATES = (10_000, 100_000, 1_000_000)
SECONDS_OF_TEN_YEARS = 10 * 365.25 * 86_400
SECONDS_OF_A_MONTH = 30 * 86_400
# What the plan assumes, as the page says.
BUSY = 0.6
KAFKA_REPLICAS = 3
REPLICAS = 2
SHARD_CORES = 32
SHARD_BYTES = 20e12
INSERTS_A_SECOND = 4
_BEGIN, _END = "<!-- plan -->\n", "<!-- end of the plan -->\n"


def figures(text: str) -> dict[str, float]:
    """Symbol to figure, from rows of the form ``| words | *x* | 12.5 | ... |``."""
    return {
        symbol: float(figure.replace(",", ""))
        for symbol, figure in re.findall(r"^\| [^|]+ \| \*(\w+)\* \| ([\d.,]+) \|", text, re.MULTILINE)
    }


def plan(rate: float, f: Mapping[str, float]) -> dict[str, float]:
    """What a peak of ``rate`` events a second needs."""
    mean = rate * f["u"]
    processes = math.ceil(rate * f["w"] / 1e6 / BUSY)
    partitions = max(4, 4 * math.ceil(processes / 2))
    segments = max(rate * f["b"] / f["s"], partitions / 60)
    ledger = mean * f["d"] * SECONDS_OF_TEN_YEARS
    minutes = segments * f["u"] * f["r"] * f["m"] * SECONDS_OF_TEN_YEARS
    cores = rate * f["c"] / 1e6 / BUSY
    return {
        "processes of the worker, a core each": processes,
        "partitions": partitions,
        "memory of the processes, GB": processes * 0.4,
        "brokers' cores": math.ceil(rate * f["k"] * KAFKA_REPLICAS / 1e6 / BUSY),
        "into Kafka, MB/s": rate * f["b"] / 1e6,
        "Kafka's disks, 30 days, TB": mean * f["b"] * SECONDS_OF_A_MONTH * KAFKA_REPLICAS / 1e12,
        "`worker.flush_seconds`": max(0.5, processes / INSERTS_A_SECOND),
        "segments a second": segments,
        "minute rows a second": segments * f["r"],
        "ClickHouse's cores, one replica": math.ceil(cores),
        "ledger and coordinates, ten years, TB": ledger / 1e12,
        "minutes, ten years, TB": minutes / 1e12,
        "hours and days, ten years, TB": f["g"] * f["h"] * SECONDS_OF_TEN_YEARS / 3_600 * 25 / 24 / 1e12,
        "shards, if everything is kept": max(1, math.ceil(max(cores / SHARD_CORES, (ledger + minutes) / SHARD_BYTES))),
        "shards, if the ledger is kept for a year": max(
            1, math.ceil(max(cores / SHARD_CORES, (ledger / 10 + minutes / 10) / SHARD_BYTES))
        ),
    }


def billion(f: Mapping[str, float]) -> dict[str, float]:
    """What a billion events cost."""
    seconds = f["w"] + KAFKA_REPLICAS * f["k"] + REPLICAS * f["c"]
    return {
        "core-hours of worker, Kafka and ClickHouse": seconds * 1_000 / 3_600,
        "of that the worker": f["w"] * 1_000 / 3_600,
        "GB in Kafka while they are kept there": f["b"] * KAFKA_REPLICAS,
        "GB in ClickHouse": (f["d"] + f["r"] * f["m"] * f["b"] / f["s"]) * REPLICAS,
    }


def shown(value: float) -> str:
    """Two digits that count, with commas; whole numbers as they are."""
    if value == int(value) and value < 100_000:
        return f"{int(value):,}"
    digits = 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(0, digits)}f}".rstrip("0").rstrip(".") if digits > 0 else f"{rounded:,.0f}"


def as_markdown(f: Mapping[str, float]) -> str:
    """Both tables."""
    plans = [plan(rate, f) for rate in RATES]
    lines = [
        "| events a second, at the peak | " + " | ".join(f"{rate:,}" for rate in RATES) + " |",
        "|---|" + "---|" * len(RATES),
        *(f"| {words} | " + " | ".join(shown(one[words]) for one in plans) + " |" for words in plans[0]),
        "",
        "| a billion events | |",
        "|---|---|",
        *(f"| {words} | {shown(value)} |" for words, value in billion(f).items()),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan, or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="X=NUMBER", help="another figure; repeatable")
    parser.add_argument("--check", action="store_true", help="only compare with the page; exit code 1 if it differs")
    parser.add_argument("--write", action="store_true", help="put the plan into the page")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    text = PAGE.read_text("utf-8")
    found = figures(text)
    for flag in options.set:
        symbol, _, number = flag.partition("=")
        if symbol not in found:
            parser.error(f"--set {flag}: the page has {', '.join(found)}")
        found[symbol] = float(number)
    made = as_markdown(found)
    head, _, rest = text.partition(_BEGIN)
    written, _, tail = rest.partition(_END)
    if options.check:
        same = written.strip() == made.strip()
        print("the plan is that of the figures" if same else "the plan is not that of the figures: --write mends it")
        return int(not same)
    if options.write:
        PAGE.write_text(f"{head}{_BEGIN}\n{made}\n{_END}{tail}", "utf-8")
    elif options.json:
        print(json.dumps({str(rate): plan(rate, found) for rate in RATES} | {"billion": billion(found)}))
    else:
        print(made, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
