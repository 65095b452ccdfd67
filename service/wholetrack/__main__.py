"""``python -m wholetrack``: the same as the command ``wholetrack``."""

from wholetrack.cli.app import main

main()
