"""Attacks on the connections of a running service, and how fast it still responds to health probes."""
