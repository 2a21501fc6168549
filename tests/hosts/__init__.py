"""Booted Debian hosts with their own systemd: units, packages, reboots and power cuts as they really are."""
