"""Running compiled programs: loading, caching, calling, training, saving."""
