"""How a release is made: its tree, its folder, its signatures."""
