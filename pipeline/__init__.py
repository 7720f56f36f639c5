"""The vocabulary (events, catalogue, fold, settings) and the program that wires streams and sinks to it."""
