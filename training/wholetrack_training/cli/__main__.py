"""``python -m wholetrack_training.cli``."""

from wholetrack_training.cli.app import main

main()
