"""Memory that a long-lived process frees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.memory import give_memory_back

# A large block that was freed makes glibc keep smaller ones in the heap, where the small ones between them hold them.
_PROGRAM = """
import sys
import numpy as np

if sys.argv[1] == "given back":
    from pipeline.runtime.memory import give_memory_back

    assert give_memory_back()

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

np.ones(30 << 20, dtype=np.uint8)
before = resident_mib()
held = [(np.ones(1 << 20, dtype=np.uint8), bytearray(2_000)) for _ in range(200)]
assert resident_mib() - before > 150
held = [small for _, small in held]
if sys.argv[1] == "given back":
    from pipeline.runtime.memory import trim

    trim()
print(resident_mib() - before)
"""


def kept_mib(how: str) -> float:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env=environment,
        timeout=60,
    )
    return float(done.stdout)


def test_freed_columns_go_back_to_the_system() -> None:
    if not give_memory_back():
        pytest.skip("the allocator is not glibc's")
    assert kept_mib("given back") < 50
    # Else the options would be needless.
    assert kept_mib("kept") > 100
