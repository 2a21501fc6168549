"""The workflow engine: its client, what it may hold, and how long it may take."""
