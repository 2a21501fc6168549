"""Tests of a real Kubernetes on this machine."""
