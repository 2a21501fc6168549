"""How penstock is run; not part of the wheel."""
