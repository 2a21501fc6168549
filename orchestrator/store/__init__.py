"""The ledger: what was, is allowed and is good, in SQLAlchemy tables."""
