"""Workers that die, leave, come, stall, and own a partition together."""

import signal

from tests.faults.plans import CRASH_POINTS, Plan
from tests.faults.scenario import Row, Scenario


def killed(row: Row) -> None:
    """SIGKILL with a batch in hand; another worker takes over."""
    victim = row.begin(row.plan("kill"))
    row.send(0.5)
    row.run.start()
    victim.wait_reached()
    victim.wait_ended()
    row.fault_ended()
    row.send(0.5)


def terminated(row: Row) -> None:
    """SIGTERM in the middle of a flush: the worker writes what it has and goes."""
    victim = row.begin(row.plan("terminate"))
    row.send(0.5)
    row.run.start()
    victim.wait_reached()
    code = victim.wait_ended()
    row.fault_ended()
    if code != 0:
        row.notes.append(f"the worker ended with {code} after SIGTERM")
    row.send(0.5)


def joins_and_leaves(row: Row) -> None:
    """Two workers stay; a third joins and leaves, by turns in order and by SIGKILL."""
    row.run.start()
    row.run.start()
    turns = 4
    for turn in range(turns):
        row.send(1 / turns)
        third = row.begin(row.plan("kill") if turn % 2 else row.plan("terminate"))
        row.load.send(3_000)
        try:
            third.wait_reached(seconds=5)
        except TimeoutError:
            third.signal(signal.SIGTERM if row.rng.random() < 0.5 else signal.SIGKILL)
        third.wait_ended()
    row.fault_ended()


def stalled(row: Row) -> None:
    """SIGSTOP past the session time-out: another worker takes over, and the zombie wakes up with a batch in hand."""
    zombie = row.begin(row.plan("stop"))
    row.send(0.4)
    zombie.wait_reached()
    zombie.wait_stopped()
    heir = row.run.start()
    row.wait_assigned(heir, partitions=4)
    row.send(0.4)
    row.wait_durable(0.5 if row.rng.random() < 0.5 else 1.0)
    zombie.signal(signal.SIGCONT)
    row.fault_ended()
    row.send(0.2)
    zombie.wait_passed()


def two_owners(row: Row) -> None:
    """Two workers in different groups fold the same partitions at once; one stops with a batch in hand while the other
    goes on to the end, is then let go on, and is killed and started again."""
    group = row.run.settings.kafka.group
    slow = row.begin(row.plan("hold"))
    row.send(0.4)
    fast = row.begin(kafka__group=f"{group}-other")
    slow.wait_reached()
    row.send(0.2)
    row.wait_durable(1.0)
    slow.release()
    slow.wait_passed()
    row.send(0.2)
    fast.signal(signal.SIGKILL)
    fast.wait_ended()
    again = row.begin(Plan(point=row.point, nth=2, action="kill"), kafka__group=f"{group}-other")
    row.fault_ended()
    row.send(0.2)
    again.wait_reached()


def racing_owners(row: Row) -> None:
    """Three workers in groups of their own fold everything at the same time, each slow at the crash point, and are
    killed and replaced in turns: every row is written several times, in any order."""
    group = row.run.settings.kafka.group
    plan = Plan(point=row.point, action="slow", seconds=0.3)
    racing = [row.begin(plan, kafka__group=f"{group}-{number}") for number in range(3)]
    for number, worker in enumerate(racing):
        row.send(0.25)
        row.wait_durable(row.rng.uniform(0.2, 0.9))
        worker.signal(signal.SIGKILL)
        worker.wait_ended()
        row.run.start(kafka__group=f"{group}-{number}")
    row.fault_ended()
    row.send(0.25)


SCENARIOS = (
    Scenario("worker killed (SIGKILL)", killed, CRASH_POINTS, quick=("before_minutes",)),
    Scenario("worker terminated (SIGTERM)", terminated, CRASH_POINTS),
    # Faust gives no more than a third, rounded up, to each: of four partitions the third worker would have none.
    Scenario(
        "a third worker joins and leaves",
        joins_and_leaves,
        CRASH_POINTS,
        settings={"kafka__partitions": 6},
    ),
    Scenario("worker stalled (SIGSTOP), then a zombie", stalled, CRASH_POINTS, quick=("before_receipts",)),
    Scenario("two owners of each partition", two_owners, CRASH_POINTS, quick=("before_minutes",)),
    Scenario("three owners race and die", racing_owners, ("before_ledger", "before_minutes", "before_receipts")),
)
