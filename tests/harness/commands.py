"""Running commands, with an assertion that they succeed."""

from __future__ import annotations

import os
import subprocess

from tests.harness.paths import PROJECT


def run(*command: str, **environment: str) -> str:
    """Run a command in the checkout and return its standard output.

    Args:
        command: The program and its arguments.
        environment: Variables to add to the environment.

    Raises:
        AssertionError: With everything the command printed, if it fails.
    """
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
