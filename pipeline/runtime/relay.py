"""The hours and days that one of several processes touched, on their way to the process that recomputes them."""

import logging

from pipeline.runtime.member import Member, Message
from pipeline.runtime.periods import Marks

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


class Relay:
    """Stands in for :class:`pipeline.runtime.periods.PeriodKeeper`; all methods are called from one thread."""

    def __init__(self, member: Member, marks: Marks) -> None:
        self._member = member
        self._marks = marks

    def step(self) -> float:
        """Send what is marked; the seconds to rest before the next call."""
        taken = self._marks.take()
        if taken:
            try:
                self._member.tell(Message(marks=taken))
            except OSError as error:
                logger.warning("marked hours and days are lost; a sweep will see to them", extra={"error": str(error)})
        return _PAUSE_SECONDS

    def stop(self) -> None:
        """Nothing takes long here."""

    def close(self) -> None:
        """Send what the last flush marked."""
        self.step()
