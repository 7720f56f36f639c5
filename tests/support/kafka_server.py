"""Apache Kafka: one node that is broker and controller, run from jars that Maven fetches."""

import base64
import re
import subprocess
import uuid
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import ClassVar

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from tests.support.cache import ServerUnavailable, cached_directory, require_program, run_fetch
from tests.support.ports import LOOPBACK, free_port, listens
from tests.support.process import ServerProcess

_FILES = Path(__file__).with_name("kafka")
_POM = _FILES / "pom.xml"
_OLDEST_JAVA = 17


class KafkaServer(ServerProcess):
    """A Kafka broker. Topics are not created by themselves, and hold one replica.

    Attributes:
        bootstrap: ``host:port`` for clients.
    """

    name: ClassVar[str] = "kafka"

    def __init__(self, directory: Path | None = None, settings: dict[str, str] | None = None) -> None:
        """``settings`` are further broker settings, which win over those here."""
        super().__init__(directory)
        self.port = free_port()
        self.bootstrap = f"{LOOPBACK}:{self.port}"
        self._controller_port = free_port()
        self._settings = settings or {}

    @property
    def data_path(self) -> Path:
        """Where the log segments lie."""
        return self.directory / "data"

    def _prepare(self) -> list[str]:
        java = _java()
        libraries = fetch()
        properties = self.directory / "server.properties"
        lines = (f"{key}={value}\n" for key, value in self._broker_settings().items())
        properties.write_text("".join(lines), "utf-8")
        program = [java, f"-Dlog4j2.configurationFile={_FILES / 'log4j2.properties'}", "-cp", f"{libraries}/*"]
        if not (self.data_path / "meta.properties").exists():
            self._format([*program, "kafka.tools.StorageTool", "format", "-c", str(properties), "-t", _cluster_id()])
        program[1:1] = ["-Xmx512m", "-Xms256m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-Djava.awt.headless=true"]
        return [*program, "kafka.Kafka", str(properties)]

    def _format(self, command: list[str]) -> None:
        done = subprocess.run(
            [command[0], "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.start_seconds,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"kafka's storage could not be formatted:\n{done.stdout[-2000:]}")

    def _broker_settings(self) -> dict[str, str]:
        broker = f"PLAINTEXT://{self.bootstrap}"
        controller = f"{LOOPBACK}:{self._controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{broker},CONTROLLER://{controller}",
            "advertised.listeners": broker,
            "log.dirs": str(self.data_path),
            "auto.create.topics.enable": "false",
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            # After a kill the broker is let in again only when its former life has timed out.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            # Fault tests want a dead member to be missed within seconds.
            "group.min.session.timeout.ms": "1000",
            **self._settings,
        }

    def _answers(self) -> bool:
        # The client waits long before it tries a refused connection again, so it is made only once someone listens.
        if not listens(self.port):
            return False
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=5_000, request_timeout_ms=5_000
            )
        except KafkaError:
            return False
        try:
            return bool(admin.describe_cluster()["brokers"])
        except KafkaError:
            return False
        finally:
            admin.close()


def fetch() -> Path:
    """The directory with the broker's jars, fetched if need be.

    Raises:
        ServerUnavailable: they cannot be fetched.
    """
    return cached_directory(f"kafka-{kafka_version()}", _fetch_jars)


def kafka_version() -> str:
    """The version that pom.xml names.

    Raises:
        ValueError: it names none.
    """
    version = ElementTree.parse(_POM).findtext(".//{*}properties/{*}kafka.version")
    if not version:
        raise ValueError(f"{_POM} has no property kafka.version")
    return version


def _fetch_jars(directory: Path) -> None:
    maven = require_program("mvn", "fetch Apache Kafka")
    run_fetch(
        [
            maven,
            "--batch-mode",
            "--quiet",
            f"--file={_POM}",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={directory}",
        ],
        directory,
    )
    if not any(directory.glob("kafka_*.jar")):
        raise ServerUnavailable("mvn fetched no jar of the Kafka broker")


def _java() -> str:
    java = require_program("java", f"run Apache Kafka (Java {_OLDEST_JAVA} or newer)")
    done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r'version "(\d+)', done.stderr)
    if found is None or int(found[1]) < _OLDEST_JAVA:
        raise ServerUnavailable(f"Apache Kafka needs Java {_OLDEST_JAVA} or newer; {java} says: {done.stderr.strip()}")
    return java


def _cluster_id() -> str:
    # The first six bits are kept from being the hyphen of the alphabet: the tool would take the id for an option.
    raw = uuid.uuid4().bytes
    return base64.urlsafe_b64encode(bytes([raw[0] & 0x7F]) + raw[1:]).decode("ascii").rstrip("=")
