"""What runs in a process of its own: the sides that count without ClickHouse."""
