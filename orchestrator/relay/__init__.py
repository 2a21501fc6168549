"""The relay: the agents' side of the engine, where each sees its own gateway's queue and nothing else."""
