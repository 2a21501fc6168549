"""Instances as plain processes of a host, in slots of their own folder, from verified folders."""
