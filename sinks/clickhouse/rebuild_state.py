"""The record of a rebuild: who works on it, how far it is, and that there is only one.

The claim is a table: of two processes that create it, ClickHouse lets one. Its comment names the rebuild. Whoever has
no sign of life for ``SILENT_SECONDS``, or is a process of this host that ended, may be replaced.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final, Literal

from msgspec import Struct, json, structs

from pipeline.errors import StoreError
from sinks.clickhouse.client import Client, Column
from sinks.clickhouse.rebuild_plan import Plan

CLAIM: Final = "rebuild_claim"
SILENT_SECONDS: Final = 60.0
BEAT_SECONDS: Final = 5.0

State = Literal["building", "exchanging", "done", "abandoned"]


class Progress(Struct, frozen=True):
    """Steps done. ``shadows``: table to the UUID of the table that takes its place; ``began_ms``: server's clock."""

    began_ms: int = 0
    shadows: dict[str, str] = {}
    copied: tuple[str, ...] = ()


class Record(Struct, frozen=True):
    """One rebuild, as its newest row says."""

    id: str
    state: State
    plan: Plan
    progress: Progress
    owner: str
    words: str
    version: int
    silent_seconds: float = 0.0

    @property
    def owner_lives(self) -> bool:
        """Whether somebody works on it."""
        host, _, process = self.owner.rpartition(":")
        if host == socket.gethostname() and not _process_lives(int(process)):
            return False
        return self.silent_seconds < SILENT_SECONDS


def this_process() -> str:
    """The owner that this process is."""
    return f"{socket.gethostname()}:{os.getpid()}"


def unfinished(client: Client) -> Record | None:
    """The rebuild that has the claim, if one has; the claim of one that ended is taken away."""
    found = client.query(
        f"SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = '{CLAIM}'"
    ).rows
    if not found:
        return None
    record = read(client, found[0][0])
    if record is None or record.state in ("done", "abandoned"):
        client.execute(f"DROP TABLE IF EXISTS {CLAIM} SYNC")
        return None
    return record


def read(client: Client, id_: str) -> Record | None:
    """The newest row of a rebuild."""
    rows = client.query(
        "SELECT id, state, plan, progress, owner, words, version,"
        " (toUnixTimestamp64Milli(now64(3)) - toUnixTimestamp64Milli(written_at)) / 1000 AS silent_seconds"
        " FROM rebuilds FINAL WHERE id = {id:String}",
        {"id": id_},
    ).dicts()
    if not rows:
        return None
    (row,) = rows
    row["plan"] = Plan.from_json(row["plan"])
    row["progress"] = json.decode(row["progress"], type=Progress)
    return Record(**row)


class Work:
    """A rebuild that this process owns. Use :meth:`beating` around the work."""

    def __init__(self, client: Client, record: Record) -> None:
        self._client = client
        self._lock = threading.Lock()
        self.record = record

    @classmethod
    def claim(cls, client: Client, id_: str, plan: Plan) -> "Work":
        """Begin a rebuild.

        Raises:
            StoreError: another one has just begun.
        """
        ((now,),) = client.query("SELECT toUnixTimestamp64Milli(now64(3)) AS now_ms").rows
        work = cls(client, Record(id_, "building", plan, Progress(began_ms=now), this_process(), "", 0))
        # First the row, then the claim: a claim always leads to a row.
        work.update()
        try:
            client.execute(f"CREATE TABLE {CLAIM} (id String) ENGINE = Null COMMENT '{id_}'")
        except StoreError as error:
            work.update(state="abandoned", words="another rebuild began at the same moment")
            if "Code: 57." in str(error):
                raise StoreError("another rebuild has just begun; wait for it") from error
            raise
        return work

    @classmethod
    def take_over(cls, client: Client, record: Record) -> "Work":
        """Go on with a rebuild whose owner is gone."""
        work = cls(client, record)
        work.update(owner=this_process())
        work.confirm()
        return work

    def update(self, **changes: object) -> None:
        """Change the record and write it."""
        with self._lock:
            self.record = structs.replace(self.record, version=self.record.version + 1, **changes)
            _write(self._client, self.record)

    def finish(self, state: State, words: str) -> None:
        """Say how it ended and give the claim back."""
        self.update(state=state, words=words)
        self._client.execute(f"DROP TABLE IF EXISTS {CLAIM} SYNC")

    def confirm(self) -> None:
        """Check that it is still this process that works on it.

        Raises:
            StoreError: another one took over.
        """
        now = read(self._client, self.record.id)
        if now is None or now.owner != self.record.owner:
            owner = now.owner if now else "nobody"
            raise StoreError(f"rebuild {self.record.id} is now worked on by {owner}; this process stops")

    @contextlib.contextmanager
    def beating(self, connect: Callable[[], Client]) -> Iterator[None]:
        """Give signs of life, on a connection of its own, while the block runs."""
        stop = threading.Event()

        def beat() -> None:
            with contextlib.closing(connect()) as client:
                while not stop.wait(BEAT_SECONDS):
                    # ClickHouse that is away shows in the work itself.
                    with contextlib.suppress(StoreError), self._lock:
                        now = read(client, self.record.id)
                        if now is not None and now.owner == self.record.owner:
                            self.record = structs.replace(self.record, version=self.record.version + 1)
                            _write(client, self.record)

        thread = threading.Thread(target=beat, name="rebuild-heart", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _write(client: Client, record: Record) -> None:
    values = {
        "id": record.id,
        "state": record.state,
        "plan": record.plan.to_json(),
        "progress": json.encode(record.progress).decode(),
        "owner": record.owner,
        "words": record.words,
    }
    columns = [Column(name, "String", [value]) for name, value in values.items()]
    client.insert("rebuilds", [*columns, Column("version", "UInt64", [record.version])])


def _process_lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
