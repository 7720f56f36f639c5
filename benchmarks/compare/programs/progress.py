"""How a counting program tells its progress: a line of JSON, ten times a second, on standard output.

``{"count": n, "at": t}`` says that n events were counted at Unix time t; the last line has ``"totals"`` besides:
``agency/service`` to [events, sum of durations in milliseconds].
"""

import json
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from pipeline.contract.events import Event, UsedEvent

EVERY_SECONDS: Final = 0.1
Totals = dict[tuple[str, str], list[float]]


class Counting:
    """Decodes events into the structures of the contract, and adds them up in a dictionary."""

    def __init__(self, expected: int) -> None:
        """``expected`` events are all."""
        self.totals: Totals = {}
        self._decode = msgspec.json.Decoder(Event).decode
        self._progress = Progress(expected)

    def add(self, values: Iterable[bytes]) -> bool:
        """Count events, one a message; whether these were the last."""
        totals = self.totals
        number = 0
        for value in values:
            add_event(totals, self._decode(value))
            number += 1
        return self._progress.add(number, totals)


def add_event(totals: Totals, event: Event) -> None:
    """Add one event: how many, and how long."""
    data = event.data
    total = totals.get((data.agency, data.service))
    if total is None:
        total = totals[data.agency, data.service] = [0, 0.0]
    total[0] += 1
    if type(event) is UsedEvent:
        total[1] += event.data.duration_ms


class Progress:
    """Tells how far it got, and whether all is done."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._count = 0
        self._told = 0.0

    def add(self, number: int, totals: Totals) -> bool:
        """Count so many more; whether they were the last, in which case the totals were told."""
        self._count += number
        now = time.time()
        done = self._count >= self._expected
        if done or now - self._told >= EVERY_SECONDS:
            self._told = now
            line: dict[str, object] = {"count": self._count, "at": now}
            if done:
                line["totals"] = {f"{agency}/{service}": total for (agency, service), total in totals.items()}
            print(json.dumps(line), flush=True)
        return done
