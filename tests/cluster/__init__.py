"""Tests on a real control plane of Kubernetes, whose nodes kwok plays."""
