"""``python -m tests.support.dying_replay BOOTSTRAP EVENTS REJECTED POINT AFTER``: a replay that is killed by itself.

It dies with SIGKILL in the transaction after ``AFTER`` complete ones, at ``POINT``: ``sent`` when the events are with
Kafka and the dispositions are not; ``commit`` when both are and nothing is committed; ``committed`` right after. At
``pause`` it does not die: before the commit it says so on standard output, and goes on with the next line of standard
input.
"""

import os
import signal
import sys
from collections.abc import Sequence

from pipeline.errors import BrokerError
from pipeline.runtime.replaying import Dispositions
from pipeline.settings import KafkaSettings, Settings
from sinks.dead_letters import Letter
from sinks.letters import read_index


class DyingDispositions(Dispositions):
    """Dies at a point of the protocol."""

    point = ""
    after = 0

    def _send_all(self, messages: Sequence[tuple[str, int | None, Letter]]) -> None:
        super()._send_all(messages)
        if messages[0][0] == self._kafka.events_topic:
            self._die("sent")

    def _commit(self) -> None:
        self._die("commit")
        if self.point == "pause" and self.after == 0:
            print("before the commit", flush=True)
            sys.stdin.readline()
        super()._commit()
        self._die("committed")
        self.after -= 1

    def _die(self, point: str) -> None:
        if self.point == point and self.after == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(bootstrap: str, events: str, rejected: str, point: str, after: str) -> None:
    """Replay everything until death."""
    kafka = KafkaSettings(bootstrap=bootstrap, events_topic=events, rejected_topic=rejected, request_timeout_seconds=10)
    settings = Settings(kafka=kafka)
    with DyingDispositions(settings) as dispositions:
        dispositions.point = point
        dispositions.after = int(after)
        dispositions.replay(read_index(settings.kafka).in_order())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BrokerError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(error.exit_code)
