"""Labelled tracks: reading recordings, extracting and caching their features, and splitting them into sides."""
