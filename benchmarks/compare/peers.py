"""What the peers need: a virtual environment of their own, and the jars of Kafka Streams with its program compiled."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.compare.servers import ROOT
from tests.support.cache import ServerUnavailable, cached_directory, require_program, run_fetch

BUILD: Final = ROOT / "build"
REQUIREMENTS: Final = ROOT / "benchmarks" / "requirements.txt"
_VENV: Final = BUILD / "bench-venv"
_STREAMS: Final = Path(__file__).with_name("programs") / "streams"


def venv_python() -> Path:
    """The interpreter of build/bench-venv, made and brought up to date if need be.

    Raises:
        ServerUnavailable: it cannot be; the message says why.
    """
    python = _VENV / "bin" / "python"
    stamp = _VENV / ".installed"
    wanted = REQUIREMENTS.read_text("utf-8")
    if not (python.exists() and stamp.exists() and stamp.read_text("utf-8") == wanted):
        BUILD.mkdir(exist_ok=True)
        if not python.exists():
            run_fetch([sys.executable, "-m", "venv", str(_VENV)], BUILD)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        run_fetch([*pip, "--requirement", str(REQUIREMENTS)], ROOT)
        stamp.write_text(wanted, "utf-8")
    return python


def versions_of(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each package in an interpreter's environment."""
    code = "import importlib.metadata as m, sys\nfor name in sys.argv[1:]: print(name, m.version(name))"
    done = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, timeout=60, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def streams_command() -> list[str]:
    """The command that runs the program on Kafka Streams, fetched and compiled if need be.

    Raises:
        ServerUnavailable: a program is missing, or the jars cannot be fetched.
    """
    java = require_program("java", "run Kafka Streams")
    javac = require_program("javac", "compile the program on Kafka Streams")
    jars = cached_directory(f"kafka-streams-{streams_version()}", _fetch_streams)
    classes = BUILD / "bench-streams"
    shutil.rmtree(classes, ignore_errors=True)
    classes.mkdir(parents=True)
    run_fetch([javac, "-cp", f"{jars}/*", "-d", str(classes), str(_STREAMS / "Windows.java")], BUILD)
    return [java, "-Xmx1g", "-cp", f"{classes}:{jars}/*", "Windows", "{bootstrap}", "{topic}", "{events}", "2"]


def streams_version() -> str:
    """The version that pom.xml names."""
    text = (_STREAMS / "pom.xml").read_text("utf-8")
    return text.partition("<kafka.version>")[2].partition("</kafka.version>")[0]


def _fetch_streams(directory: Path) -> None:
    maven = require_program("mvn", "fetch Kafka Streams")
    run_fetch(
        [
            *(maven, "--batch-mode", "--quiet", f"--file={_STREAMS / 'pom.xml'}"),
            *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={directory}"),
        ],
        directory,
    )
    if not any(directory.glob("kafka-streams-*.jar")):
        raise ServerUnavailable("mvn fetched no jar of Kafka Streams")
