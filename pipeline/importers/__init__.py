"""Bring in what other systems have recorded, as events of the contract."""
