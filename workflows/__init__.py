"""The story of an upgrade, told deterministically; its methods are the runbook's sentences."""
