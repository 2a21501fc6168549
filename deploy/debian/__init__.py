"""The packages: a wheel, and what Debian 12 installs on the orchestrator's host and on a gateway's."""
