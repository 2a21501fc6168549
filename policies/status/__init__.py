"""Status: what a change remembers of itself, says of itself, and refuses to be told."""
