"""Tracing: one trace a change, told to a collector that nobody waits for; off unless an address is set."""
