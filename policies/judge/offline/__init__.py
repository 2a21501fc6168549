"""The judge's tools for hindsight and foresight; no verdict needs them, so the online worker imports none."""
