"""The real service under load while its parts die: what must still be true, for a minute each or for seconds in CI."""
