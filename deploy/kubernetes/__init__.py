"""What an administrator installs in a cluster: a chart, and plain manifests that are rendered of it."""
