"""The servers of a run: Kafka with a second listener that goes through a proxy, and ClickHouse that is kept alive."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kafka import KafkaAdminClient

from tests.support import ClickHouseServer, KafkaServer
from tests.support.keeping import kept_alive
from tests.support.ports import LOOPBACK, free_port


class TwoDoorKafka(KafkaServer):
    """A broker with two listeners: clients of ``bootstrap`` talk to it directly, those of ``proxied_bootstrap`` through
    whatever listens there and hands on to ``proxied_port``."""

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory)
        self.proxied_port = free_port()
        self.proxy_port = free_port()
        self.proxied_bootstrap = f"{LOOPBACK}:{self.proxy_port}"

    def _broker_settings(self) -> dict[str, str]:
        settings = super()._broker_settings()
        return settings | {
            "listeners": f"{settings['listeners']},PROXIED://{LOOPBACK}:{self.proxied_port}",
            "advertised.listeners": f"{settings['advertised.listeners']},PROXIED://{self.proxied_bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            # Each scenario leaves some hundred megabytes behind.
            "log.segment.delete.delay.ms": "1000",
            # Scenarios choose time stamps; retention is played by deleting records.
            "log.retention.ms": "-1",
            "log.message.timestamp.after.max.ms": str((1 << 63) - 1),
            "message.max.bytes": str(24 << 20),
            "replica.fetch.max.bytes": str(24 << 20),
        }

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """An administrator, closed at the end."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=30_000)
        try:
            yield admin
        finally:
            admin.close()


class Keeper:
    """Keeps ClickHouse alive from :meth:`begin` to :meth:`end`, so that a scenario can do without in between."""

    def __init__(self, server: ClickHouseServer) -> None:
        self._server = server
        self._keeping: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self.restarts = 0

    def begin(self) -> None:
        """Start it again from now on whenever it has ended."""
        if self._thread is None:
            self._keeping = threading.Event()
            self._thread = threading.Thread(target=self._keep, args=(self._keeping,), name="keeper")
            self._thread.start()

    def end(self) -> None:
        """Leave it alone from now on; it is running."""
        if self._thread is not None and self._keeping is not None:
            self._keeping.set()
            self._thread.join()
            self._thread = None
        self._server.start()

    def _keep(self, done: threading.Event) -> None:
        with kept_alive(self._server) as restarts:
            done.wait()
        self.restarts += len(restarts)
