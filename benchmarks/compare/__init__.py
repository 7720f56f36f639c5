"""xidmet beside what would be picked instead: one run, one machine, the same events. See benchmarks/README.md."""
