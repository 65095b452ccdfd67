"""Runs a program under Landlock, seccomp and resource limits; knows nothing about audio."""
