"""The supervisor's decisions, with programs of a few lines in the place of workers."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.errors import LogMismatchError, SchemaError, XidmetError
from pipeline.runtime import supervisor
from pipeline.runtime.member import Message
from pipeline.runtime.supervisor import Supervisor, ends_all, pause, worst
from pipeline.settings import Settings, WorkerSettings
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(worker=WorkerSettings(stop_seconds=20))
# A member that says that it is there and waits for the end; what follows is the difference.
MEMBER = """
import os, signal, sys, threading
from pathlib import Path
from pipeline.runtime.member import Message, this_member
member = this_member()
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
member.tell(Message(port=1000 + member.number))
"""


class Run:
    """A supervisor at work on a program; what it was told."""

    def __init__(self, program: str, count: int, settings: Settings = SETTINGS) -> None:
        command = [sys.executable, "-c", MEMBER + textwrap.dedent(program)]
        self.messages: list[tuple[int, Message]] = []
        self.ends: list[tuple[int, bool]] = []
        self.supervisor = Supervisor(
            command,
            settings,
            count,
            lambda number, message: self.messages.append((number, message)),
            lambda number, again: self.ends.append((number, again)),
        )
        self.code = asyncio.ensure_future(self.supervisor.run())

    def pid(self, number: int) -> int:
        process = self.supervisor.children[number - 1].process
        assert process is not None
        return process.pid

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():
                await asyncio.sleep(0.02)

    async def serves(self, *counts: int) -> None:
        """Until each process has told its port so often."""
        said = lambda: [[number for number, _ in self.messages].count(1 + i) for i in range(len(counts))]  # noqa: E731
        await self.until(lambda: said() == list(counts))

    async def end(self) -> int:
        async with asyncio.timeout(120):
            return await self.code


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the programs import the modules under test."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.05)


def family() -> Iterable[type[XidmetError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, XidmetError)]


def test_what_must_be_mended_first_ends_all_and_what_may_pass_does_not() -> None:
    assert {kind.__name__ for kind in family() if not ends_all(kind.exit_code)} == {
        "XidmetError",
        "BrokerError",
        "StoreError",
    }
    assert ends_all(2)
    assert not any(map(ends_all, (0, 1, -signal.SIGKILL, -signal.SIGSEGV)))


@pytest.mark.parametrize(
    ("codes", "code"), [([], 0), ([0, 0], 0), ([0, 1], 1), ([1, 8, 0], 8), ([-9, 0], 1), ([-9, 3], 3), ([9, 11], 11)]
)
def test_the_worst_exit_code(codes: list[int], code: int) -> None:
    assert worst(codes) == code


def test_the_pauses_grow_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [pause(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 10_000)] == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_all_end_in_order_and_have_the_settings() -> None:
    run = Run("told.wait(); sys.exit(0 if member.settings.worker.stop_seconds == 20 else 5)", 3)
    await run.serves(1, 1, 1)
    assert [child.port for child in run.supervisor.children] == [1001, 1002, 1003]
    run.supervisor.stop()
    assert await run.end() == 0
    assert sorted(run.ends) == [(1, False), (2, False), (3, False)]
    assert [child.port for child in run.supervisor.children] == [None] * 3


async def test_what_a_process_says_last_arrives() -> None:
    run = Run("told.wait(); member.tell(Message(marks={'hours': list(range(0, 90_000 * 3_600, 3_600))}))", 1)
    await run.serves(1)
    run.supervisor.stop()
    assert await run.end() == 0
    assert len(run.messages[-1][1].marks["hours"]) == 90_000


async def test_a_killed_process_is_started_again_and_the_others_stay() -> None:
    run = Run("told.wait()", 2)
    await run.serves(1, 1)
    first, second = run.pid(1), run.pid(2)
    os.kill(first, signal.SIGKILL)
    await run.serves(2, 1)
    assert run.pid(1) != first
    assert run.pid(2) == second
    assert run.ends == [(1, True)]
    run.supervisor.stop()
    assert await run.end() == 0


async def test_a_process_that_crashes_is_started_again(tmp_path: Path) -> None:
    program = f"""
    tries = Path({str(tmp_path)!r}) / str(member.number)
    count = int(tries.read_text()) if tries.exists() else 0
    tries.write_text(str(count + 1))
    if count < 3:
        sys.exit((1, 6, 7)[count])
    told.wait()
    """
    run = Run(program, 1)
    await run.serves(4)
    assert run.ends == [(1, True)] * 3
    run.supervisor.stop()
    assert await run.end() == 0


async def test_a_process_that_needs_mending_ends_all_with_its_code() -> None:
    run = Run(f"member.number == 2 and sys.exit({SchemaError.exit_code}); told.wait()", 3)
    assert await run.end() == SchemaError.exit_code
    assert sorted(run.ends) == [(1, False), (2, False), (3, False)]


async def test_a_process_that_ends_badly_when_told_to_end_is_the_exit_code() -> None:
    run = Run(f"told.wait(); sys.exit({LogMismatchError.exit_code} if member.number == 1 else 1)", 2)
    await run.serves(1, 1)
    run.supervisor.stop()
    assert await run.end() == LogMismatchError.exit_code


async def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SPARE_SECONDS", 0.1)
    run = Run("while True: signal.pause()", 1, Settings(worker=WorkerSettings(stop_seconds=0.1)))
    await run.serves(1)
    run.supervisor.stop()
    assert await run.end() == 1


async def test_a_process_told_to_end_before_it_listens_has_nothing_to_lose() -> None:
    run = Run("told.wait()", 2)
    await run.until(lambda: all(child.running for child in run.supervisor.children))
    run.supervisor.stop()
    assert await run.end() == 0


async def test_a_fault_of_the_parent_is_an_exit_code() -> None:
    run = Run("told.wait()", 1)
    await run.serves(1)
    run.supervisor.fail()
    assert await run.end() == 1


PARENT = """
import asyncio, sys
from pipeline.runtime.supervisor import Supervisor
from pipeline.settings import Settings, WorkerSettings
told = lambda number, message: print(children[number - 1].process.pid, flush=True)
async def run():
    global children
    supervisor = Supervisor([sys.executable, "-c", sys.argv[1]], Settings(worker=WorkerSettings(stop_seconds=0.1)), 2, told)
    children = supervisor.children
    await supervisor.run()
asyncio.run(run())
"""  # noqa: E501


@pytest.mark.parametrize("program", ["told.wait()", "while True: signal.pause()"], ids=["listens", "hangs"])
def test_nobody_is_left_when_the_parent_is_killed(program: str) -> None:
    command = [sys.executable, "-c", PARENT, MEMBER + program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
    wait_until(lambda: not any(map(alive, pids)), 60, "the processes to end")


def alive(pid: int) -> bool:
    """Whether the process is there and no mere entry that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
