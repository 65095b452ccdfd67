"""Benchmarks of the images: size, start, rebuild, and several instances on one machine."""
