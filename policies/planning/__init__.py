"""Planning: who changes when, within which limits, and what a plan says to people."""
