"""Where readings come from and how ours are exposed."""
