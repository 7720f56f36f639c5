"""The Makefile explains itself, and each target can be planned."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def phony_targets() -> list[str]:
    return [target for line in re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE) for target in line.split()]


def make(*arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # These tests usually run below "make test", whose own settings must not reach the make under test.
    environment = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    }
    return subprocess.run(
        ["make", *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_is_the_default_and_lists_every_phony_target() -> None:
    shown = make()
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == make("help").stdout
    listed = re.findall(r"^  make (\S+) +\S", shown.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony_targets())


@pytest.mark.parametrize("target", phony_targets())
def test_target_can_be_planned(target: str) -> None:
    planned = make("--dry-run", target)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.strip()


def test_arguments_reach_the_demo_and_nothing_follows_its_output() -> None:
    planned = make("--dry-run", "demo", "ARGS=--seconds 20 --json").stdout.splitlines()
    assert planned[-1] == ".venv/bin/xidmet demo --seconds 20 --json"


def test_the_last_line_of_the_demo_is_the_last_line_of_make(tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "xidmet"
    program.parent.mkdir(parents=True)
    (program.parent / "python").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv" / ".installed-demo").touch()
    program.write_text('#!/bin/sh\necho "first"\necho "$*"\n', "utf-8")
    program.chmod(0o755)
    done = make("demo", "ARGS=--json", directory=tmp_path)
    assert done.stdout.splitlines() == ["first", "demo --json"], done.stderr


def test_arguments_reach_the_comparison() -> None:
    planned = make("--dry-run", "bench", "ARGS=--rounds 1 --events 200000").stdout.splitlines()
    assert planned[-1] == (".venv/bin/python -m benchmarks.compare --steady --write-results --rounds 1 --events 200000")


def test_arguments_and_the_number_of_processes_reach_the_tests() -> None:
    pytest_of = ".venv/bin/python -m pytest --numprocesses {} --dist worksteal -k name"
    for jobs, variables in ((3, []), (0, ["JOBS=0"])):
        planned = make("--dry-run", "test", "ARGS=-k name", *variables).stdout.splitlines()
        assert planned[-1] == pytest_of.format(jobs)


def test_an_old_interpreter_is_refused(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" && exit 0\nexit 1\n', "utf-8")
    old.chmod(0o755)
    refused = make("demo", f"PYTHON={old}", directory=tmp_path)
    assert refused.returncode != 0
    assert "Python 3.11 or newer is needed" in refused.stderr
    assert "Python 3.9.2" in refused.stderr
    assert not (tmp_path / ".venv").exists()

    missing = make("demo", "PYTHON=no-such-python", directory=tmp_path)
    assert missing.returncode != 0
    assert "no-such-python is not installed" in missing.stderr


def test_minutes_and_seed_reach_the_soak_and_arguments_the_faults() -> None:
    planned = make("--dry-run", "soak", "MINUTES=2", "SEED=7", "ARGS=--rate 10").stdout.splitlines()
    soak = ".venv/bin/python -m tests.faults.soak --minutes 2 --seed 7 --rate 10"
    assert " ".join(planned[-1].split()) == soak
    planned = make("--dry-run", "faults", "ARGS=--seed 7 --only zombie").stdout.splitlines()
    assert planned[-1] == ".venv/bin/python -m tests.faults --seed 7 --only zombie"
