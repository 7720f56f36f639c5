"""Synthetic events, shaped after published figures, for the demonstration, tests and benchmarks."""

from pipeline.generator.generator import Generator
from pipeline.generator.spoiled import spoiled

__all__ = ["Generator", "spoiled"]
