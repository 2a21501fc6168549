"""strongSwan: its daemon charon, asked over vici."""
