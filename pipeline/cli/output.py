"""How commands print: tables for people, JSON or tab-separated values for programs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from pipeline.errors import InputError


def print_json(content: Any) -> None:
    """One line of JSON on standard output."""
    click.echo(msgspec.json.encode(content, enc_hook=str).decode())


def print_rows(names: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool, title: str = "") -> None:
    """Rows as a table on a terminal, as tab-separated values in a pipe, as a JSON array of objects if asked."""
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    if not sys.stdout.isatty():
        click.echo("\t".join(names))
        for row in rows:
            click.echo("\t".join(_tsv(value) for value in row))
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for place, name in enumerate(names):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    Console().print(table)


def read_text(file: str) -> tuple[str, str]:
    """The text of a file that a user named, - for standard input, and what to call it in errors.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    if file == "-":
        return sys.stdin.read(), "standard input"
    try:
        return Path(file).read_text("utf-8"), file
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error


def agreed(question: str) -> bool:
    """Ask on standard error; standard output is for the answer of the command."""
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tsv(value: Any) -> str:
    """The escapes of ClickHouse's TabSeparated format."""
    text = "\\N" if value is None else _plain(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") if value is not None else text


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return msgspec.json.encode(value, enc_hook=str).decode()
    return str(value)
