"""The HTTP API: parses, asks the service, and answers in JSON."""
