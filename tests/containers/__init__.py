"""The image and its Compose file, built, run and attacked: `make containers`, which needs a Docker engine."""
