"""Tests of the images and Compose files: built, run and attacked. `make containers` runs them with a Docker engine."""
