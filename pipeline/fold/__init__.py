"""The fold: records of one partition to ledger rows, minute rows, rejects and receipts, segment by segment.

Pure and deterministic: nothing here reads a clock, a file or a socket. Whoever folds a segment from its start, with
the rules in its receipt, gets the same rows, however the records are cut into batches.
"""
