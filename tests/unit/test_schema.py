"""Cutting migrations into statements."""

import pytest

from sinks.clickhouse.schema import migrations, statements_of


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []),
        ("-- only; words;\n/* and; more */ ;\n;", []),
        ("SELECT 1;\nSELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("-- a;\nSELECT 1;\n-- the end;\n", ["-- a;\nSELECT 1"]),
        ("SELECT ';\n' AS a;\nSELECT 2;", ["SELECT ';\n' AS a", "SELECT 2"]),
        ("SELECT 'it''s;' ; SELECT 'a\\';b';", ["SELECT 'it''s;'", "SELECT 'a\\';b'"]),
        ('SELECT 1 AS `a;b`; SELECT 1 AS "c;d"', ["SELECT 1 AS `a;b`", 'SELECT 1 AS "c;d"']),
        ("SELECT /* ;\n */ 1;\nSELECT 3 - -1;", ["SELECT /* ;\n */ 1", "SELECT 3 - -1"]),
        ("COMMENT '-- no comment;' ;\nSELECT 1", ["COMMENT '-- no comment;'", "SELECT 1"]),
    ],
)
def test_semicolons_end_statements_only_outside_comments_and_quotes(sql: str, statements: list[str]) -> None:
    assert statements_of(sql) == statements


def test_the_migrations_are_numbered_upwards_and_every_statement_begins_with_a_word_that_changes_something() -> None:
    numbers = [migration.number for migration in migrations()]
    assert numbers == sorted(set(numbers))
    for migration in migrations():
        assert migration.statements
        for statement in migration.statements:
            code = "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
            assert code.startswith(
                ("CREATE TABLE IF NOT EXISTS", "CREATE VIEW IF NOT EXISTS", "CREATE OR REPLACE VIEW", "ALTER TABLE")
            ), code
