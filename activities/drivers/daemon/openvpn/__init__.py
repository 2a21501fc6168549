"""OpenVPN as a daemon."""
