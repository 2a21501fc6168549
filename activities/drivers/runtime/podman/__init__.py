"""Gateways whose instances are containers of podman on one host, made of signed images by its agent."""
