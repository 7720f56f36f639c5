"""Ports for servers of tests: no two processes are given the same one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ports

ROOT = Path(__file__).resolve().parents[2]
HOLD = "import sys; from tests.support.ports import free_port; print(free_port(), flush=True); sys.stdin.read()"


def test_a_port_given_to_another_process_is_not_given_here_until_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        assert not ports.listens(taken)
        monkeypatch.setattr("random.randrange", lambda *bounds: taken)
        with pytest.raises(OSError, match="no free port"):
            ports.free_port()
        other.communicate()
    assert ports.free_port() == taken
    with pytest.raises(OSError, match="no free port"):
        ports.free_port()
