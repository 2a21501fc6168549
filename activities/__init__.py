"""One step each, safe to repeat: a port, the activity methods over it, and the mapping of its errors."""
