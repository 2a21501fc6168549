"""Sinks of notices: the only place that knows how each kind of receiver is told."""
