"""Server programs are fetched once and kept in a cache that all test runs of a user share."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until

FETCH_SECONDS = 900.0
LOCK_SECONDS = FETCH_SECONDS + 60


class ServerUnavailable(Exception):
    """This machine cannot run the server: a program is missing, it cannot be fetched, or the platform is another."""


def cache_root() -> Path:
    """``XIDMET_CACHE``, or ``~/.cache/xidmet``."""
    return Path(os.environ.get("XIDMET_CACHE") or Path.home() / ".cache" / "xidmet")


def cached_directory(name: str, fill: Callable[[Path], None]) -> Path:
    """The directory ``name`` of the cache; ``fill`` puts its content into an empty directory if it is not there yet.

    It appears complete or not at all, and only one process fills it while the others wait.

    Raises:
        ServerUnavailable: ``fill`` said so, or another process held the lock for longer than a fetch may take.
    """
    root = cache_root()
    final = root / name
    if final.is_dir():
        return final
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f"{name}.lock"):
        if final.is_dir():
            return final
        for left_behind in root.glob(f".{name}.*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
        try:
            fill(partial)
            partial.chmod(0o755)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def require_program(name: str, used_for: str) -> str:
    """The path of a program on PATH.

    Raises:
        ServerUnavailable: it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise ServerUnavailable(f"{name} is not installed; it is needed to {used_for}")
    return path


def run_fetch(command: Sequence[str], directory: Path) -> str:
    """Run a package client in ``directory`` and return what it printed.

    Raises:
        ServerUnavailable: it failed or took longer than 15 minutes.
    """
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerUnavailable(f"{command[0]} took longer than {FETCH_SECONDS:.0f} s to fetch") from error
    if done.returncode != 0:
        raise ServerUnavailable(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:

        def acquired() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        try:
            wait_until(acquired, LOCK_SECONDS, f"the lock {path}", every=0.2)
        except TimeoutError as error:
            raise ServerUnavailable(str(error)) from error
        yield
