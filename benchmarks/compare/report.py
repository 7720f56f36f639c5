"""From the courses of all rounds to figures, ratios and a table. Pure: no clock, no files, no processes.

A rate is (last count - first count seen) / time between, so that starting up does not count; ``whole`` counts from the
start of the side's processes; ``fitted`` is the slope of a line through all steps. CPU seconds are those used between
the first and the last count, for a million of the events in between. Ratios are taken within a round, where both sides
met the same machine; then the median of the rounds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import linear_regression, median
from typing import Any

from benchmarks.compare.measuring import Course, Sample

_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """One round of one side: events a second, CPU seconds per million events and peak megabytes by role."""

    events: int
    rate: float
    whole_rate: float
    fitted_rate: float
    seconds: float
    cpu_per_million: dict[str, float]
    cpu_total: dict[str, float]
    peak_mb: dict[str, float]


@dataclass(slots=True)
class SideReport:
    """What a side did over the rounds; ``unavailable`` says why it did nothing."""

    label: str
    work: str
    settings: dict[str, Any] = field(default_factory=dict)
    rounds: list[Figures | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unavailable: str = ""

    @property
    def done(self) -> list[Figures]:
        """The rounds that succeeded."""
        return [one for one in self.rounds if one is not None]

    def as_json(self) -> dict[str, Any]:
        """As build/bench.json has it."""
        content = asdict(self)
        if self.done:
            content["events_per_s"] = spread([one.rate for one in self.done])
            content["whole_events_per_s"] = spread([one.whole_rate for one in self.done])
            content["cpu_s_per_million"] = {
                role: median(one.cpu_per_million.get(role, 0.0) for one in self.done) for role in self._roles()
            }
            content["peak_mb"] = {role: max(one.peak_mb.get(role, 0.0) for one in self.done) for role in self._roles()}
        return content

    def cpu(self) -> float:
        """CPU seconds per million events over all roles, median."""
        return median(cpu_of(one) for one in self.done)

    def peak(self, role: str) -> float:
        """Highest peak of a process of the role, in megabytes."""
        return max(one.peak_mb.get(role, 0.0) for one in self.done)

    def _roles(self) -> list[str]:
        return sorted({role for one in self.done for role in one.cpu_per_million})


def figures(course: Course) -> Figures:
    """The figures of a round; its last sample shows that everything is there.

    If nothing was seen before everything was there, as in a run too short for it, the start of the processes counts as
    the first moment.
    """
    last = course.samples[-1]
    first = next(sample for sample in course.samples if sample.count > 0)
    if first.count >= last.count:
        first = Sample(course.began, 0, course.began, {})
    events = last.count - first.count
    used = {role: seconds - first.cpu.get(role, 0.0) for role, seconds in last.cpu.items()}
    return Figures(
        events=last.count,
        rate=events / max(last.at - first.at, 1e-9),
        whole_rate=last.count / max(last.at - course.began, 1e-9),
        fitted_rate=fitted_rate([first, *course.samples]) or events / max(last.at - first.at, 1e-9),
        seconds=last.at - course.began,
        cpu_per_million={role: seconds / events * 1e6 for role, seconds in used.items()},
        cpu_total=dict(last.cpu),
        peak_mb={role: max(peaks, default=0) / _MB for role, peaks in course.peak_bytes.items()},
    )


def fitted_rate(samples: Sequence[Sample]) -> float | None:
    """The slope of a line through the moments when the count had grown; None for less than four of them.

    What becomes visible in few large steps, several at once, looks faster between the first and the last than it is,
    because most of the first step's time is left out; a line through all steps does not.
    """
    steps = [later for earlier, later in pairwise(samples) if later.count > earlier.count]
    if len(steps) < 4:
        return None
    fit = linear_regression([step.at for step in steps], [step.count for step in steps])
    return max(fit.slope, 0.0) or None


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": median(values), "lowest": min(values), "highest": max(values)}


def cpu_of(one: Figures) -> float:
    """CPU seconds per million events of all processes: side, broker, ClickHouse."""
    return sum(one.cpu_per_million.values())


def ratio(
    ours: SideReport | None, theirs: SideReport | None, of: Callable[[Figures], float] = lambda one: one.rate
) -> dict[str, float] | None:
    """Ours through theirs in each round in which both succeeded: median, lowest, highest; None without such a round."""
    if ours is None or theirs is None:
        return None
    pairs = [(a, b) for a, b in zip(ours.rounds, theirs.rounds, strict=False) if a is not None and b is not None]
    return spread([of(a) / of(b) for a, b in pairs]) if pairs else None


def best(sides: Mapping[str, SideReport], names: Sequence[str]) -> str | None:
    """The name of the side with the highest median rate; None if none succeeded."""
    candidates = [name for name in names if name in sides and sides[name].done]
    return max(candidates, key=lambda name: median(one.rate for one in sides[name].done), default=None)


def summary(sides: Mapping[str, SideReport]) -> dict[str, Any]:
    """The keys of build/bench.json that stand for the whole; None where a side is missing; its report says why."""
    full = best(sides, [name for name in sides if name.startswith("xidmet_single")])
    batched = best(sides, [name for name in sides if name.startswith("xidmet_batches")])
    get = sides.get
    ours = sides[full] if full else None
    one = get("xidmet_single_1")
    content: dict[str, Any] = {
        "xidmet_side": full,
        "xidmet_batched_side": batched,
        "xidmet_events_per_s": spread([each.rate for each in ours.done])["median"] if ours else None,
        "cpu_s_per_million": ours.cpu() if ours else None,
        "rss_mb": ours.peak("side") if ours else None,
    }
    ratios = {
        "ratio_vs_kafka_engine": (ours, get("kafka_engine_single")),
        "ratio_vs_kafka_engine_as_documented": (ours, get("kafka_engine_documented")),
        "ratio_vs_kafka_engine_batched": (sides[batched] if batched else None, get("kafka_engine_batches")),
        "ratio_vs_stock_faust": (get("faust_batched"), get("faust_stock")),
        "ratio_vs_quixstreams": (get("faust_batched"), get("quixstreams_plain")),
        "ratio_vs_quixstreams_windows": (one, get("quixstreams_windows")),
        "ratio_vs_kafka_streams_windows": (ours, get("kafka_streams")),
        "full_path_vs_stock_faust": (one, get("faust_stock")),
        "full_path_vs_quixstreams": (one, get("quixstreams_plain")),
    }
    content["ratios"] = {key: ratio(mine, other) for key, (mine, other) in ratios.items()}
    content["fitted_ratios"] = {
        key: ratio(mine, other, lambda one: one.fitted_rate) for key, (mine, other) in ratios.items()
    }
    # Turned round, so that more is better here as well.
    content["cpu_ratios"] = {key: ratio(other, mine, cpu_of) for key, (mine, other) in ratios.items()}
    return content | {key: found["median"] if found else None for key, found in content["ratios"].items()}


def shown(value: float | None, form: str = ",.0f") -> str:
    """A figure for a table; a dash if there is none."""
    return "-" if value is None else format(value, form)


def table(sides: Mapping[str, SideReport]) -> list[str]:
    """The sides as lines of a Markdown table."""
    lines = [
        "| side | events/s, median | range | from process start | CPU s per million: side | broker | ClickHouse |"
        " peak MB: side | ClickHouse | broker |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for side in sides.values():
        if not side.done:
            lines.append(
                f"| {side.label} | not measured: {_one_line(side.unavailable or side.failures[-1])} |" + " |" * 8
            )
            continue
        content = side.as_json()
        rate, whole, cpu, peak = (
            content[key] for key in ("events_per_s", "whole_events_per_s", "cpu_s_per_million", "peak_mb")
        )
        cells = [
            side.label,
            shown(rate["median"]),
            f"{rate['lowest']:,.0f} to {rate['highest']:,.0f}",
            shown(whole["median"]),
            *(shown(cpu.get(role), ".1f") for role in ("side", "broker", "clickhouse")),
            *(shown(peak.get(role)) for role in ("side", "clickhouse", "broker")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:200]
