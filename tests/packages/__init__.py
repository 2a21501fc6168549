"""The Debian packages: what is in them, what their units may do, how they are made."""
