"""The share of refused events of each agency, over the last minutes, and the alarm when it is too large.

The window goes by the clock, in pieces of a minute, so that an agency that stopped sending is forgotten after it and
its series end. Refused events that name no agency of the catalogue are ``other``; there being no accepted ones beside
them, their share is of all events.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipeline.settings import RejectedSettings

logger = logging.getLogger(__name__)
_PIECE_SECONDS = 60.0


class RejectShares(Collector):
    """Counts accepted and refused events by agency.

    Args:
        settings: length of the window, the limit, and below how many events there is no alarm.
        other: the label of refused events without a known agency.
        clock: seconds; another one than the usual is for tests.
    """

    def __init__(self, settings: RejectedSettings, other: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._other = other
        self._clock = clock
        # Minute to counts; at most as many as the window has minutes, and the current one.
        self._pieces: dict[int, tuple[Counter[str], Counter[str]]] = {}
        self._alarmed: frozenset[str] = frozenset()

    def add(self, accepted: Mapping[str, int], rejected: Mapping[str, int]) -> None:
        """Count events by agency (labels), and log alarms that begin and end."""
        now = self._expire()
        good, bad = self._pieces.setdefault(now, (Counter(), Counter()))
        good.update(accepted)
        bad.update(rejected)
        self._look()

    def shares(self) -> dict[str, tuple[float, int]]:
        """Agency to (share of refused events, events), of those that had any in the window."""
        self._expire()
        pieces = list(self._pieces.values())
        good: Counter[str] = Counter()
        bad: Counter[str] = Counter()
        for accepted, rejected in pieces:
            good.update(accepted)
            bad.update(rejected)
        shares = {}
        for agency in sorted(good.keys() | bad.keys()):
            events = good[agency] + bad[agency]
            if agency == self._other:
                events = good.total() + bad.total()
            if events:
                shares[agency] = bad[agency] / events, events
        return shares

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """See the client library."""
        shares = self._look()
        share = GaugeMetricFamily(
            "xidmet_reject_share", "Share of an agency's events of the last minutes that was refused", labels=["agency"]
        )
        alarm = GaugeMetricFamily(
            "xidmet_reject_alarm", "1 if that share is above rejected.alarm_share", labels=["agency"]
        )
        window = GaugeMetricFamily("xidmet_reject_window_events", "Events that share is of", labels=["agency"])
        for agency, (value, events) in shares.items():
            share.add_metric([agency], value)
            alarm.add_metric([agency], float(agency in self._alarmed))
            window.add_metric([agency], events)
        return [share, alarm, window]

    def _expire(self) -> int:
        now = int(self._clock() // _PIECE_SECONDS)
        for minute in [minute for minute in self._pieces if minute <= now - self._settings.alarm_minutes]:
            self._pieces.pop(minute, None)
        return now

    def _look(self) -> dict[str, tuple[float, int]]:
        """The shares now; logs what changed about the alarms."""
        shares = self.shares()
        limit, least = self._settings.alarm_share, self._settings.alarm_events
        alarmed = frozenset(agency for agency, (share, events) in shares.items() if share > limit and events >= least)
        before, self._alarmed = self._alarmed, alarmed
        for agency in sorted(alarmed - before):
            share, events = shares[agency]
            logger.warning(
                "an agency's share of refused events is above rejected.alarm_share; see xidmet rejected stats",
                extra={"agency": agency, "share": round(share, 4), "events": events, "limit": limit},
            )
        for agency in sorted(before - alarmed):
            share, events = shares.get(agency, (0.0, 0))
            logger.warning(
                "an agency's share of refused events is no longer above rejected.alarm_share",
                extra={"agency": agency, "share": round(share, 4), "events": events, "limit": limit},
            )
        return shares
