"""The embedded default: real gateways, clients and metrics in network namespaces of this machine."""
