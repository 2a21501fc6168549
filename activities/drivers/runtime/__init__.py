"""How an instance exists: staged, started, observed, stopped."""
