"""Metrics, intervals, verdicts, clocks and percentiles."""
