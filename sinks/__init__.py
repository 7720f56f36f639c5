"""Where results go: ClickHouse, Prometheus, the dead-letter topic."""
