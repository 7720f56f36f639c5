"""What the benchmarks of long runs share: servers and a worker, what processes take, what becomes of parts, figures."""
