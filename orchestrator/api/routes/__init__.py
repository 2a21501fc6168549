"""Routes, one file per noun of the tree."""
