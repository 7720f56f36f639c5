"""``xidmet rules``: the rules in force, partition by partition, and how those of this configuration begin at once."""

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Literal

from msgspec import Struct

from pipeline.catalogue import load_catalogue
from pipeline.errors import BrokerError, StoreError
from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules
from pipeline.runtime.endpoint import open_client
from pipeline.runtime.log_reader import LogReader
from pipeline.runtime.rebuild import open_for_writing
from pipeline.settings import KafkaSettings, Settings
from sinks.clickhouse.catalogues import store_catalogue
from sinks.clickhouse.rule_change import Place, begin, newest_topic_id, obstacles, partitions_folded, place_of
from sinks.clickhouse.rules import store_rules
from sinks.clickhouse.schema import require_schema
from streams.topics import group_members, partitions_of, topic_ids, write_marker

logger = logging.getLogger(__name__)

Outcome = Literal["same", "applied", "would apply", "refused"]
INSTEAD = (
    "start a worker: it folds that again under the old rules; then end it and apply again, or let it go on up to the"
    " marker that it writes, and replay what was refused until there"
)


class Standing(Struct, frozen=True):
    """A partition and the rules in force there; ``in_force`` is None where nothing was folded yet.

    ``segment`` is the newest one, ``next_offset`` the place up to which it was folded. ``log_end`` is None if Kafka
    does not answer. ``differences`` name each field in which the rules are not those of this configuration.
    """

    partition: int
    segment: int | None
    next_offset: int | None
    closed: bool | None
    log_end: int | None
    in_force: Rules | None
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether this configuration's rules are in force, or will be with the first record."""
        return not self.differences


class Overview(Struct, frozen=True):
    """The partitions of the events topic and the rules of this configuration."""

    topic: str
    topic_id: str
    rules: Rules
    partitions: tuple[Standing, ...]


class Applied(Struct, frozen=True):
    """What became of a partition: from ``offset`` on the rules apply, unless refused; ``words`` say how, or why not.

    ``offset`` is None where nothing was folded yet.
    """

    partition: int
    offset: int | None
    outcome: Outcome
    words: str


def show(settings: Settings) -> Overview:
    """The rules in force. Only reads; works without Kafka, for the topic that was folded last."""
    rules = rules_here(settings)
    with closing(open_client(settings.clickhouse)) as client:
        require_schema(client, settings.clickhouse)
        try:
            logs = _logs(settings.kafka)
            with LogReader(settings.kafka) as reader:
                ends = {log: end for log, (_, end) in reader.bounds(logs).items()}
        except BrokerError as error:
            logger.warning("the ends of the log are not known", extra={"error": str(error)})
            topic = settings.kafka.events_topic
            id_ = newest_topic_id(client, topic) or ""
            logs = [LogPartition(topic, id_, partition) for partition in partitions_folded(client, id_)]
            ends = {}
        places = [place_of(client, log) for log in logs]
    standings = tuple(_standing(place, rules, ends.get(place.log)) for place in places)
    return Overview(settings.kafka.events_topic, logs[0].topic_id if logs else "", rules, standings)


def apply(settings: Settings, *, dry_run: bool, agree: Callable[[list[Applied]], bool]) -> list[Applied]:
    """Let the rules of this configuration begin where each partition stands.

    Args:
        settings: whose rules, topic, group and database are meant.
        dry_run: only say what would be done.
        agree: asked, with what would be done, before anything is; False ends it.

    Raises:
        BrokerError: Kafka is away, or workers are in the group.
        StoreError: ClickHouse is away, or a worker has the chdb directory open.
    """
    rules = rules_here(settings)
    catalogue = load_catalogue(settings.catalogue_path)
    with closing(open_for_writing(settings, "end it, apply the rules, and start it again")) as client:
        _refuse_beside_workers(settings.kafka)
        places = [place_of(client, log) for log in _logs(settings.kafka)]
        others = [place for place in places if place.in_force not in (None, rules)]
        refused = obstacles(client, others)
        changed = [place for place in others if place.log not in refused]
        plan = [_planned(place, rules, refused.get(place.log)) for place in places]
        if dry_run or not changed or not agree(plan):
            return plan
        # Whoever was asked may have taken their time.
        _refuse_beside_workers(settings.kafka)
        store_catalogue(client, catalogue)
        store_rules(client, rules)
        for place in changed:
            if place_of(client, place.log) != place or obstacles(client, [place]):
                raise StoreError(f"partition {place.log.partition} was folded meanwhile; end all workers and run again")
            # In the log that is still to be folded may be a marker of a worker with the old rules: the last one wins.
            # It is written first: if this ends between the two, another run finds something to do.
            write_marker(settings.kafka, place.log, rules)
            begin(client, place, rules)
    return [
        Applied(item.partition, item.offset, "applied" if item.outcome == "would apply" else item.outcome, item.words)
        for item in plan
    ]


def rules_here(settings: Settings) -> Rules:
    """The rules of this configuration."""
    return Rules.of(settings.fold, load_catalogue(settings.catalogue_path).version)


def _logs(settings: KafkaSettings) -> list[LogPartition]:
    topic = settings.events_topic
    id_ = topic_ids(settings, [topic])[topic]
    return [LogPartition(topic, id_, partition) for partition in range(partitions_of(settings, topic))]


def _standing(place: Place, rules: Rules, log_end: int | None) -> Standing:
    newest, in_force = place.newest, place.in_force
    return Standing(
        partition=place.log.partition,
        segment=newest.segment if newest else None,
        next_offset=newest.next_offset if newest else None,
        closed=newest.closed if newest else None,
        log_end=log_end,
        in_force=in_force,
        differences=tuple(in_force.differences(rules)) if in_force else (),
    )


def _planned(place: Place, rules: Rules, obstacle: str | None) -> Applied:
    receipt = place.newest
    offset = receipt.next_offset if receipt is not None else None
    if place.in_force is None:
        return Applied(place.log.partition, None, "same", "nothing was folded yet")
    if place.in_force == rules:
        return Applied(place.log.partition, offset, "same", "in force already")
    if obstacle is not None:
        return Applied(place.log.partition, offset, "refused", f"{obstacle}; {INSTEAD}")
    if receipt is None:
        return Applied(place.log.partition, None, "would apply", "the first segment takes them")
    words = {
        "next": f"the next segment, from {receipt.next_offset} on, takes them",
        "close": f"segment {receipt.segment} ends at {receipt.next_offset}; the next one takes them",
        "open": f"segment {receipt.segment}, opened and not begun, takes them",
    }[place.step]
    return Applied(place.log.partition, offset, "would apply", words)


def _refuse_beside_workers(settings: KafkaSettings) -> None:
    members = group_members(settings)
    if members:
        raise BrokerError(
            f"{members} workers are in group {settings.group}; end all of them first (one that died leaves after"
            f" kafka.session_timeout_seconds = {settings.session_timeout_seconds:g})"
        )
