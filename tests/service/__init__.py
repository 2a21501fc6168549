"""The service and its frontends."""
