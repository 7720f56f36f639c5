"""Real servers for tests and for trying things out: Apache Kafka and ClickHouse, without containers.

``python -m tests.support`` starts both and says how to connect.
"""

from tests.support.cache import ServerUnavailable
from tests.support.clickhouse_server import ClickHouseServer
from tests.support.kafka_server import KafkaServer
from tests.support.process import ServerProcess
from tests.support.waiting import wait_until

__all__ = ["ClickHouseServer", "KafkaServer", "ServerProcess", "ServerUnavailable", "wait_until"]
