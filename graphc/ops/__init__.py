"""The operations: one record each, a file a family, and what joins and shares them."""
