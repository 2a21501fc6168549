"""A real Kubernetes on one machine: its programs, its control plane, and what can go wrong with it."""
