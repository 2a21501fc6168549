"""Noticing: looking through the ledger for what people are to be told, and telling every sink."""
