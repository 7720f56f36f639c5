"""When people use services: the load over the day and the week, in the local time of Baku."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from pipeline.generator.calibration import CENTRE_HOURS, HOUR_WEIGHTS, WEEKDAY_WEIGHTS

BAKU = ZoneInfo("Asia/Baku")
Floats = npt.NDArray[np.float64]
Milliseconds = npt.NDArray[np.int64]

_MAX_STEPS = 100_000
_STEP_SECONDS = 900.0
_DAY_MS = 86_400_000
_OPENS_MS, _CLOSES_MS = (hour * 3_600_000 for hour in CENTRE_HOURS)


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970 in UTC."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def load(local: datetime) -> float:
    """Relative load at a local time; the mean over a week is about 1."""
    hour = local.hour + local.minute / 60
    low = HOUR_WEIGHTS[local.hour]
    high = HOUR_WEIGHTS[(local.hour + 1) % 24]
    return (low + (high - low) * (hour - local.hour)) * WEEKDAY_WEIGHTS[local.weekday()]


class Rhythm:
    """The distribution of events between two moments."""

    def __init__(self, start: datetime, end: datetime) -> None:
        """Prepare the cumulative load between two aware moments, ``start`` before ``end``.

        Raises:
            ValueError: a moment without time zone, or an empty period.
        """
        if start.tzinfo is None or end.tzinfo is None:
            raise ValueError("start and end need a time zone")
        if milliseconds(end) <= milliseconds(start):
            raise ValueError(f"end {end.isoformat()} is not after start {start.isoformat()}")
        seconds = (end - start).total_seconds()
        steps = int(min(max(seconds / _STEP_SECONDS, 1), _MAX_STEPS))
        self.start = milliseconds(start)
        self.end = milliseconds(end)
        self._edges = np.linspace(self.start, self.end, steps + 1)
        middle = start.astimezone(UTC) + timedelta(seconds=seconds / steps / 2)
        loads = [load((middle + timedelta(seconds=seconds * step / steps)).astimezone(BAKU)) for step in range(steps)]
        cumulative = np.concatenate(([0.0], np.cumsum(loads)))
        self._cumulative = cumulative / cumulative[-1]

    def times(self, quantiles: Floats) -> Milliseconds:
        """The moments, in milliseconds since 1970, at which these shares of all events have happened."""
        moments = np.interp(quantiles, self._cumulative, self._edges).astype(np.int64)
        return np.minimum(moments, self.end - 1)


def _local(times: Milliseconds) -> tuple[Milliseconds, Milliseconds, int]:
    """Day number since 1970 and millisecond of the day in Baku, and the offset from UTC in milliseconds.

    The offset of the first moment serves for all: Baku has had no summer time since 2016.
    """
    offset = BAKU.utcoffset(datetime.fromtimestamp(int(times.flat[0]) / 1000, UTC).astimezone(BAKU)) or timedelta()
    shift = offset // timedelta(milliseconds=1)
    local = times + shift
    return local // _DAY_MS, local % _DAY_MS, shift


def _weekday(days: Milliseconds) -> Milliseconds:
    return (days + 3) % 7  # 1 January 1970 was a Thursday


def centres_open(times: Milliseconds) -> npt.NDArray[np.bool_]:
    """Whether service centres are open at each moment."""
    if not times.size:
        return np.zeros(0, dtype=np.bool_)
    days, moment, _ = _local(times)
    are_open: npt.NDArray[np.bool_] = (moment >= _OPENS_MS) & (moment < _CLOSES_MS) & (_weekday(days) != 6)
    return are_open


def in_office_hours(times: Milliseconds, place: Floats) -> Milliseconds:
    """Put off moments outside office hours, Monday to Friday, to the next working day.

    ``place`` says where in that day: 0 when the office opens, 1 when it closes.
    """
    if not times.size:
        return times
    days, moment, shift = _local(times)
    weekday = _weekday(days)
    working = (weekday < 5) & (moment >= _OPENS_MS) & (moment < _CLOSES_MS)
    next_day = days + ((weekday >= 5) | (moment >= _CLOSES_MS))
    next_day += np.maximum(7 - _weekday(next_day), 0) * (_weekday(next_day) >= 5)
    put_off = next_day * _DAY_MS + _OPENS_MS + (place * (_CLOSES_MS - _OPENS_MS)).astype(np.int64) - shift
    return np.where(working, times, put_off)
