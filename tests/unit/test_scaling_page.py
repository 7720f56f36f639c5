"""docs/scaling.md: its plan follows from its figures, and its sharding keys are those of the program."""

import re
from pathlib import Path

import pytest

from benchmarks import scaling_plan as plan
from pipeline.settings import FoldSettings
from sinks.clickhouse.schema import migrations
from sinks.clickhouse.shards import SHARDING_KEYS, Shards

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text("utf-8")


def test_the_plan_is_that_of_the_figures() -> None:
    figures = plan.figures(PAGE)
    assert set(figures) == set("wckbdmrsghu")
    assert figures["s"] == FoldSettings().segment_bytes
    assert plan.as_markdown(figures) in PAGE
    assert plan.main(["--check"]) == 0


def test_the_arithmetic() -> None:
    figures = dict(
        zip("wckbdmrsghu", (6.0, 6.0, 1.0, 400.0, 50.0, 100.0, 2_000.0, 16e6, 1_000.0, 500.0, 0.5), strict=True)
    )
    found = plan.plan(100_000, figures)
    assert found["processes of the worker, a core each"] == 1
    assert found["into Kafka, MB/s"] == 40
    assert found["segments a second"] == pytest.approx(2.5)
    assert found["ledger and coordinates, ten years, TB"] == pytest.approx(50_000 * 50 * 315_576_000 / 1e12)
    assert found["minutes, ten years, TB"] == pytest.approx(2.5 * 0.5 * 2_000 * 100 * 315_576_000 / 1e12)
    assert plan.plan(1_000_000, figures)["processes of the worker, a core each"] == 10
    assert plan.billion(figures)["core-hours of worker, Kafka and ClickHouse"] == pytest.approx(21_000 / 3_600)


@pytest.mark.parametrize(
    ("value", "words"),
    [(4, "4"), (0.5, "0.5"), (126_230.4, "130,000"), (12.34, "12"), (0.0123, "0.012"), (1_234.5, "1,200")],
)
def test_figures_are_shown_with_two_digits(value: float, words: str) -> None:
    assert plan.shown(value) == words


def test_the_sharding_keys_are_those_of_the_program() -> None:
    table = PAGE.partition("## Several shards")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", table, re.MULTILINE)) == SHARDING_KEYS


def test_every_statement_of_every_migration_has_its_form_on_a_shard() -> None:
    shards = Shards("c", ())
    names = set()
    for statement in (one for item in migrations() for one in item.statements):
        made = list(shards.statements(statement))
        code = re.sub(r"--[^\n]*\n", "", statement)
        if code.startswith("CREATE TABLE"):
            name = code.split()[5]
            names.add(name)
            assert len(made) == 2
            assert f" {name}_local\n" in made[0]
            assert "PARTITION BY" not in made[1]
            assert "ORDER BY" not in made[1]
            assert f"ENGINE = Distributed(c, currentDatabase(), {name}_local, {SHARDING_KEYS[name]})" in made[1]
        elif "MODIFY SETTING" in code:
            # The Distributed table has no parts.
            (only,) = made
            assert only.startswith(f"ALTER TABLE {code.split()[2]}_local MODIFY SETTING")
        elif code.startswith("ALTER TABLE"):
            assert len(made) == 2
            assert "ORDER BY" not in made[1]
        else:
            assert made == [statement]
    assert names == set(SHARDING_KEYS)
