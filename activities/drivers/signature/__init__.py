"""How signatures are verified."""
