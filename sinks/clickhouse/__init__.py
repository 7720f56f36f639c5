"""ClickHouse, on a server or in the process: schema, writer, positions, reader, audit."""
