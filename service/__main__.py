"""``python -m service``: the same as the command ``wholetrack``."""

from service.cli.app import main

main()
