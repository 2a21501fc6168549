"""ocserv 1.1.6 to 1.5.0, over its own files and occtl."""
