"""Instances that are pods: the driver of one fleet's slots on the nodes of one Kubernetes cluster."""
