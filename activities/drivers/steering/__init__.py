"""Who gets new sessions."""
