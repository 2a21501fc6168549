"""The driver of a fleet's slots, against a real API server with the chart's own rights and policies."""
