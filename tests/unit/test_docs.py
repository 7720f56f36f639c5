"""The documentation is true where a program can tell: links, commands, settings, metrics, findings, queries."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from pipeline.catalogue import demonstration_catalogue
from pipeline.cli.main import cli
from pipeline.settings import ClickHouseSettings, Settings
from sinks.prometheus import Metrics

ROOT = Path(__file__).resolve().parents[2]
ANALYSTS = ROOT / "docs" / "analysts.md"
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
_PROMPTS = ("|", "&&", "||", ";", "&")


def pages() -> list[Path]:
    """Every Markdown file of the project; not those of installed packages."""
    folders = [
        ROOT,
        *(ROOT / name for name in ("docs", "benchmarks", "tests", "docker", "pipeline", "streams", "sinks")),
    ]
    found = [path for folder in folders for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))]
    assert len(found) > 15
    return sorted(found)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fences(path: Path, *languages: str) -> list[str]:
    """Contents of the fenced blocks in one of the languages."""
    return [body for _, language, body in _FENCE.findall(path.read_text("utf-8")) if language in languages]


def prose(path: Path) -> str:
    """The page without code, in which brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", path.read_text("utf-8")))


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_relative_links_resolve(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link} leads nowhere"
        assert ROOT in path.parents or path == ROOT, f"{link} leads out of the project"
        if anchor:
            assert anchor in anchors(path), f"{link}: no such heading"


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Every call of xidmet in shell blocks, indented commands and text between backticks, as words."""
    for page in pages():
        text = page.read_text("utf-8")
        lines = [line for block in fences(page, "sh", "bash") for line in block.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"^    (xidmet .+)$", text, re.MULTILINE)
        lines += re.findall(r"`(xidmet [a-z-][^`]*)`", _FENCE.sub("", text))
        for line in lines:
            if "xidmet" not in line:
                continue
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            lexer.commenters = "#"
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word in _PROMPTS or word in ("<", ">"):
                    while words and "=" in words[0] and not words[0].startswith("-"):
                        words.pop(0)
                    if words and words[0].rpartition("/")[2] == "xidmet":
                        yield page, words[1:]
                    words = []
                else:
                    words.append(word)


ALL_COMMANDS = list(commands())


@pytest.mark.parametrize(
    ("page", "words"), ALL_COMMANDS, ids=[f"{shown(page)}: {' '.join(words)[:60]}" for page, words in ALL_COMMANDS]
)
def test_commands_and_options_exist(page: Path, words: list[str]) -> None:
    parse(cli, [word for word in words if word != "..."])


def test_the_pages_show_every_command() -> None:
    used = {word for _, words in ALL_COMMANDS for word in words}
    assert set(cli.list_commands(click.Context(cli))) <= used


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Parse as click does, down to the last command, without running any."""
    # As click makes it: a command keeps the help option of the first context that asks for it, for all later ones.
    context = click.Context(command, parent, info_name=command.name, **command.context_settings)
    if isinstance(command, click.Group):
        rest = command.make_parser(context).parse_args(list(words))[1]
        if not rest:
            return
        inner = command.get_command(context, rest[0])
        assert inner is not None, f"xidmet has no command {rest[0]}"
        for flag in (value for name, value in pairwise(words) if name == "--set"):
            section, _, key = flag.partition("=")[0].partition(".")
            assert (section, key) in {(one, other) for one, other, _ in all_settings()}, f"no setting {flag}"
        parse(inner, rest[1:], context)
        return
    parser = command.make_parser(context)
    parser.parse_args([word for word in words if word not in ("-h", "--help")])


def all_settings() -> list[tuple[str, str, Any]]:
    """(section, key, default) of every setting."""
    tree = msgspec.to_builtins(Settings())
    return [(section, key, value) for section, keys in tree.items() for key, value in keys.items()]


@pytest.mark.parametrize(("section", "key", "default"), all_settings(), ids=lambda value: str(value)[:40])
def test_every_setting_is_described_with_its_default(section: str, key: str, default: Any) -> None:
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    written = {"": '""', (): "[]"}.get(default, str(default))
    (row,) = re.findall(rf"^\| `{section}\.{key}` \| ([^|]+) \| `([^`]*)` \| ([^|]+) \|$", text, re.MULTILINE)
    assert row[1] == written
    assert row[2].strip().endswith(".")


def test_no_setting_is_described_that_is_not_there() -> None:
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    described = re.findall(r"^\| `(\w+\.\w+)` \|", text, re.MULTILINE)
    assert described == [f"{section}.{key}" for section, key, _ in all_settings()]


def test_environment_variables_name_settings() -> None:
    known = {f"XIDMET_{section}__{key}".upper() for section, key, _ in all_settings()}
    known |= {"XIDMET_CONFIG", "XIDMET_CACHE", "XIDMET_SECTION__KEY"}
    for page in pages():
        found = set(re.findall(r"\bXIDMET_\w+", page.read_text("utf-8")))
        assert found <= known, f"{shown(page)}: {found - known}"


def test_every_metric_is_described_and_no_other() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    described = dict(re.findall(r"^\| `(xidmet_\w+)` \| (\w+) \|", text, re.MULTILINE))
    real = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in Metrics(["agency"]).registry.collect()
    }
    assert described == real
    names = set(re.findall(r"\bxidmet_\w+", text))
    assert {re.sub(r"_bucket$", "", name) for name in names} <= set(real)


def test_every_finding_is_described_and_no_other() -> None:
    tree = ast.parse((ROOT / "sinks" / "clickhouse" / "audit.py").read_text("utf-8"))
    codes = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
        if isinstance(node.args[0], ast.Constant)
    }
    assert len(codes) >= 8
    text = (ROOT / "docs" / "audit.md").read_text("utf-8")
    table = text.partition("## The findings")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == codes


def test_the_guarantees_name_tests_and_rows_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    promises = [line for line in text.partition("## Why it holds")[0].splitlines() if line.startswith("| ")][2:]
    assert len(promises) > 25
    for promise in promises:
        words, shown_by = promise.strip("| ").split(" | ") if not promise.startswith("| **") else ("", "")
        assert not words or "`" in shown_by, f"nothing shows: {words}"
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        content = (ROOT / file).read_text("utf-8")
        assert not name or re.search(rf"^ *(?:async )?def {name}\(", content, re.MULTILINE), f"{file} has no {name}"
    scenarios = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "faults").glob("scenarios_*.py"))
    for names in re.findall(r"\brows? (`[^`]+`(?:, `[^`]+`)*)", text):
        for name in re.findall(r"`([^`]+)`", names):
            assert f'"{name}"' in scenarios, f"make faults has no row {name}"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    listed = re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    assert listed == records
    for name in records:
        text = (folder / name).read_text("utf-8")
        assert text.startswith(f"# {name[:4]} ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Reason", "Consequences"]


def test_python_blocks_compile() -> None:
    for page in pages():
        for block in fences(page, "python"):
            compile(block, shown(page), "exec")


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_benchmarks_are_described_and_explain_themselves(script: Path) -> None:
    assert f"`{script.name}`" in (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


@pytest.mark.embedded
def test_the_queries_for_analysts_run(tmp_path: Path) -> None:
    pytest.importorskip("chdb")
    from sinks.clickhouse.catalogues import store_catalogue
    from sinks.clickhouse.client import connect
    from sinks.clickhouse.schema import migrate

    queries = fences(ANALYSTS, "sql")
    assert len(queries) >= 10
    settings = ClickHouseSettings(url=f"chdb:{tmp_path / 'clickhouse'}")
    migrate(settings)
    client = connect(settings)
    try:
        for query in queries:
            assert client.query(query).names, query
        store_catalogue(client, demonstration_catalogue())
        for query in queries:
            assert client.query(query).names, query
        for page in pages():
            for query in re.findall(r'xidmet [^\n]*query "([^"]+)"', page.read_text("utf-8")):
                assert client.query(query).names, query
    finally:
        client.close()
