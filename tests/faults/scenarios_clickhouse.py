"""ClickHouse killed, refusing, frozen, slow, read-only, out of parts; inserts that come late or without an answer."""

import signal
from typing import Any, Final

from tests.faults.plans import CRASH_POINTS, FIVE_POINTS, WRITES, Plan
from tests.faults.scenario import Row, Scenario
from tests.support.waiting import wait_until

_TABLES: Final = ("ledger", "coordinates", "minutes", "receipts")


def clickhouse_killed(row: Row) -> None:
    """SIGKILL to ClickHouse at a crash point of a worker, away for a while, started again."""
    with row.without_keeper():
        worker = row.begin(row.plan("hold"))
        row.at_the_point(row.clickhouse.kill, row.clickhouse.start, worker)
        row.wait_durable()


def clickhouse_refuses(row: Row) -> None:
    """The door to ClickHouse is closed."""
    worker = row.begin(row.plan("hold"), **_through_proxy(row))
    row.at_the_point(row.clickhouse_proxy.refuse, row.clickhouse_proxy.heal, worker)


def clickhouse_name_unknown(row: Row) -> None:
    """The name of ClickHouse's host cannot be resolved for a while, and what was connected is cut."""
    name = row.run.directory / "name"
    name.touch()
    flags = {key: url.replace("@127.0.0.1:", "@clickhouse.test:") for key, url in _through_proxy(row).items()}
    plan = row.plan("hold", resolves=f"clickhouse.test={name}")
    worker = row.begin(plan, **flags)

    def unknown() -> None:
        name.unlink()
        row.clickhouse_proxy.cut()

    row.at_the_point(unknown, name.touch, worker)


def clickhouse_cut(row: Row) -> None:
    """Connections to ClickHouse are cut again and again, in the middle of whatever is on its way."""
    row.begin(**_through_proxy(row))
    row.run.start(**_through_proxy(row))
    for _ in range(8):
        row.send(1 / 8)
        row.clickhouse_proxy.cut()
    row.fault_ended()


def clickhouse_frozen(row: Row) -> None:
    """No byte comes through to ClickHouse for longer than the time-out of a query; connections stay open."""
    worker = row.begin(row.plan("hold"), clickhouse__query_timeout_seconds=3, **_through_proxy(row))

    def freeze() -> None:
        row.clickhouse_proxy.freeze()

    row.at_the_point(freeze, row.clickhouse_proxy.heal, worker)


def clickhouse_slow(row: Row) -> None:
    """A narrow line to ClickHouse, and a worker that is killed behind it."""
    victim = row.begin(row.plan("kill"), **_through_proxy(row))
    row.clickhouse_proxy.slow(1_000_000)
    row.send(0.5)
    row.run.start(**_through_proxy(row))
    victim.wait_reached(seconds=200)
    victim.wait_ended()
    row.send(0.5)
    row.outage()
    row.clickhouse_proxy.heal()
    row.fault_ended()


def answer_lost(row: Row) -> None:
    """An insert is done, and the connection is cut before its answer: the worker must do it again."""
    table = row.point.removeprefix("before_").removeprefix("after_")
    row.begin(**_through_proxy(row))
    row.send(0.3)
    row.wait_durable(0.3)
    row.clickhouse_proxy.lose_answers(table, 3)
    row.send(0.7)
    row.wait_durable()
    row.fault_ended()
    if row.clickhouse_proxy.answers_lost < 1:
        row.notes.append("no answer was lost: the scenario tested nothing")
    row.clickhouse_proxy.answers_lost = 0


def insert_comes_late(row: Row) -> None:
    """The rows of an insert are on their way when their worker is killed; they come when its heir is long done."""
    dead = row.begin(row.plan("hold"), **_through_proxy(row))
    row.send(0.4)
    dead.wait_reached()
    row.clickhouse_proxy.hold_insert(row.point.removeprefix("before_"))
    dead.release()
    wait_until(lambda: row.clickhouse_proxy.held, 60, "the insert to be on its way")
    dead.signal(signal.SIGKILL)
    dead.wait_ended()
    row.run.start()
    row.fault_ended()
    row.send(0.6)
    row.wait_durable()
    row.clickhouse_proxy.heal()
    # Until what was held is with ClickHouse, which then finds nobody to answer.
    wait_until(lambda: row.clickhouse_proxy.connections == 0, 60, "the late insert to come")


def clickhouse_read_only(row: Row) -> None:
    """One table takes no rows for a while."""
    table = _table_of(row)
    worker = row.begin(row.plan("hold"))

    def read_only() -> None:
        row.execute(f"ALTER TABLE {table} MODIFY SETTING table_readonly = 1")

    def writable() -> None:
        row.execute(f"ALTER TABLE {table} RESET SETTING table_readonly")

    row.at_the_point(read_only, writable, worker)


def out_of_parts(row: Row) -> None:
    """Merges stand still and a table has more parts than inserts may add to."""
    table = _table_of(row)
    worker = row.begin(row.plan("hold"))

    def stop_merges() -> None:
        row.execute(f"SYSTEM STOP MERGES {table}")
        row.execute(f"ALTER TABLE {table} MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1")

    def go_on() -> None:
        row.execute(f"ALTER TABLE {table} RESET SETTING parts_to_throw_insert, parts_to_delay_insert")
        row.execute(f"SYSTEM START MERGES {table}")

    row.at_the_point(stop_merges, go_on, worker)


def sink_fails(row: Row) -> None:
    """The sink fails ten times in a row at the crash point, while another worker joins."""
    row.begin(Plan(point=row.point, nth=row.rng.randint(1, 3), action="fail", times=10))
    row.send(0.5)
    row.run.start()
    row.send(0.5)
    row.fault_ended()


def _table_of(row: Row) -> str:
    """The table that comes after the row's crash point, with its database."""
    name = row.point.removeprefix("before_")
    return f"{row.run.settings.clickhouse.url.rpartition('/')[2]}.{name if name in _TABLES else 'receipts'}"


def _through_proxy(row: Row) -> dict[str, Any]:
    url = row.run.settings.clickhouse.url
    return {"clickhouse__url": url.replace(f":{row.clickhouse.native_port}/", f":{row.clickhouse_proxy.port}/")}


SCENARIOS = (
    Scenario("ClickHouse killed and restarted", clickhouse_killed, CRASH_POINTS, keep=False, quick=("before_minutes",)),
    Scenario("ClickHouse refuses connections", clickhouse_refuses, CRASH_POINTS),
    Scenario("ClickHouse's name cannot be resolved", clickhouse_name_unknown, ("before_openings", *WRITES)),
    Scenario("ClickHouse cut off again and again", clickhouse_cut),
    Scenario("ClickHouse frozen beyond the time-out", clickhouse_frozen, ("before_openings", *WRITES)),
    Scenario("ClickHouse slow, and a worker killed", clickhouse_slow, FIVE_POINTS),
    Scenario("ClickHouse: the answer to an insert lost", answer_lost, WRITES, quick=("before_minutes",)),
    Scenario("an insert comes when its worker is long dead", insert_comes_late, WRITES, quick=("before_receipts",)),
    Scenario("ClickHouse table read-only", clickhouse_read_only, WRITES),
    Scenario("ClickHouse out of parts", out_of_parts, WRITES),
    Scenario("sink fails again and again", sink_fails, CRASH_POINTS),
)
