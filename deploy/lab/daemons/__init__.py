"""The daemons of a lab's gateways: everything in which a lab of one product differs from another's."""
