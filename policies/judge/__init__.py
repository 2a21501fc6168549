"""Judging an observation window: counts and gauges in, verdicts and a decision out."""
