"""What a gateway daemon is: its config, status, sessions and probe."""
