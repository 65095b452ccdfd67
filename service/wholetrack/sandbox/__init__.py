"""Run a program, or a Python function, under Landlock, seccomp and resource limits.

``client.Sandbox`` is the entry point. It keeps a launcher process running and asks it to spawn programs or functions.
The launcher forks a child for each, which restricts itself before it executes the program or calls the function.

- Service: ``client`` and ``connection`` talk to the launcher, ``process`` is a running program.
- Launcher: ``launcher`` forks and reaps children, ``child`` is what they do before exec, and ``landlock`` and
  ``seccomp`` hold the file access rules and the system-call filter.
- Both: ``protocol`` describes the messages, ``target`` what is spawned, and ``layers`` and ``limits`` what can be
  applied.

The package knows nothing about audio and imports nothing else from ``wholetrack``. This module imports nothing at all,
because the launcher has to start quickly.
"""
