"""What sinks.clickhouse promises, as tests: run against chdb in tests/embedded and a server in tests/servers.

A module that imports these classes defines the fixture ``store``: the settings of a new, empty database.
"""

import pytest

# Modules that are not named test_*.py would else fail with bare AssertionErrors.
MODULES = (
    "audit",
    "client",
    "columns",
    "data",
    "migrations",
    "periods",
    "popularity",
    "positions",
    "rebuild",
    "recent",
    "rule_change",
    "writer",
)
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in MODULES))
