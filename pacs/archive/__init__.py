"""Layer 3: use cases, the only place where storage meets index."""
