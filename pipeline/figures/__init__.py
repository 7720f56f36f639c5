"""Figures that others counted: history from spreadsheets, and costs. Stated, not counted by the pipeline."""
