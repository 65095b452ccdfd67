"""Run the command ``wholetrack`` with ``python -m wholetrack``."""

from wholetrack.cli.app import main

main()
