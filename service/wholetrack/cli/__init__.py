"""The command ``wholetrack``: ``app`` holds its verbs, ``render`` what they print, ``verify`` the reference road."""
