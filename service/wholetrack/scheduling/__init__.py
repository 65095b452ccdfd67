"""Which track may use a processor next."""
