"""The command line: commands, and how they print their results."""
