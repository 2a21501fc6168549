"""How the ledger's schema came to be, one step per file, run whenever a ledger is opened."""
