"""Deliberately damaged files, sent to the real service, which must respond to each of them correctly."""
