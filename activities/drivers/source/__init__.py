"""Where releases are pulled from."""
