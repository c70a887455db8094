"""Loop nests over scalars and buffers, with a schedule and a memory plan. Plain data."""
