"""The program: what wires the vocabulary to streams and sinks."""
