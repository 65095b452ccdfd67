"""The command line: its commands, and how they print their results."""
