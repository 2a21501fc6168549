"""The gate policy: which questions are asked of the metrics, and what their answers may do."""

from policies.words.word import Word


class GatePolicy(Word):
    """The content of gates.yaml."""
