"""Logs of several processes that write to one place: each line says whose it is."""

import json
import logging
from collections.abc import Iterator

import pytest

from pipeline.log import configure_logging, process_name
from pipeline.settings import LogSettings


@pytest.fixture(autouse=True)
def kept_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    configure_logging(LogSettings())
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_says_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(), "worker 2")
    logging.getLogger("x").warning("words", extra={"offset": 3})
    line = json.loads(capsys.readouterr().err)
    assert (line["process"], line["message"], line["offset"]) == ("worker 2", "words", 3)
    assert process_name() == "worker 2"


def test_a_plain_line_says_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"), "worker 2")
    logging.getLogger("x").warning("words")
    assert "WARNING [worker 2] x: words" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_lone_process_says_none(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging(LogSettings(format=form))  # type: ignore[arg-type]
    logging.getLogger("x").warning("words")
    line = capsys.readouterr().err
    assert "process" not in line
    assert "[" not in line
    assert process_name() == ""
