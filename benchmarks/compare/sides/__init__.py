"""What is compared, a module a side: xidmet, ClickHouse's Kafka engine, and programs that only count."""
