"""HTTP, which no other room knows of: ``app`` assembles it, ``predict`` is the main road."""
