"""Looking inside: the chain rule as a ledger."""
