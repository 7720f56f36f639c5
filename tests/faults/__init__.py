"""The fault suite: real Kafka, a real ClickHouse server, workers as processes, and everything that can go wrong.

``python -m tests.faults`` (``make faults``) runs all of it; ``python -m tests.faults.soak`` (``make soak``) runs random
faults under load. Both end with the audit and with a count of the topic that shares no code with the pipeline.
"""
