"""Kafka to fold: the batched Faust transport and the agent that feeds the fold."""
