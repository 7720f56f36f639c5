"""A year of events inside ClickHouse, the analysts' questions to it, their measurement: see benchmarks/queries.py."""
