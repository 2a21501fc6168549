"""The vocabulary every room shares, one noun per module."""
