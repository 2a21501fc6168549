"""Gateways whose instances are pods on a node: the agent's side, which has no right in the cluster."""
