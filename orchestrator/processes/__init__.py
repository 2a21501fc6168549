"""What runs: the composition roots, and how each begins and ends."""
