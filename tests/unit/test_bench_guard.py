"""The arithmetic of benchmarks/guard.py, and that what it measures is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import guard

ROOT = Path(__file__).resolve().parents[2]


def test_the_probability_that_so_many_pairs_are_worse_by_chance() -> None:
    assert guard.by_chance(0, 5) == 1
    assert guard.by_chance(5, 5) == pytest.approx(1 / 32)
    assert guard.by_chance(8, 9) == pytest.approx(10 / 512)
    assert guard.by_chance(7, 9) == pytest.approx(46 / 512)


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        ([1.0] * 9, "well"),
        ([0.5] * 9, "well"),
        # Slower in each pair, but by less than matters.
        ([1.04] * 9, "well"),
        ([1.06] * 9, "worse"),
        ([1.06] * 8 + [0.9], "worse"),
        # By the median slower, but the pairs do not agree: the machine did something else.
        ([1.3] * 5 + [0.9] * 4, "unsure"),
        ([1.3] * 7 + [0.99] * 2, "unsure"),
        # Too few pairs to say.
        ([2.0] * 4, "unsure"),
        ([2.0] * 5, "worse"),
        # One pair that was hit by something else changes nothing.
        ([1.0] * 8 + [30.0], "well"),
    ],
)
def test_the_verdict(ratios: list[float], word: str) -> None:
    assert guard.verdict(ratios, 1.05)[0] == word


def test_every_part_is_measured_in_this_tree(tmp_path: Path) -> None:
    load = tmp_path / "load"
    guard.write_load(load, 300)
    assert len(load.read_bytes().splitlines()) == 300
    done = guard.run_in(ROOT, guard.command(ROOT, load, 300, ""))
    found = json.loads(done.stdout)
    assert guard.FOLD in found
    assert [name for name, seconds in found.items() if not isinstance(seconds, float)] == []


def test_packages_of_another_tree_are_not_measured_by_mistake(tmp_path: Path) -> None:
    load = tmp_path / "load"
    guard.write_load(load, 10)
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        guard.command(tmp_path, load, 10, ""), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"is not of {tmp_path}" in done.stderr


def test_an_unknown_commit_is_said() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "guard.py"), "--against", "no-such-commit"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no-such-commit" in done.stderr
