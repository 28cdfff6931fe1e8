"""The `emunet` command: one file a command, each loaded when it is used.

Rule of this package: a command asks the daemon, prints, and chooses the exit code (0 done,
1 refused or not so, 2 bad usage); what it prints for people and what `-o json` prints come
from the same answer. rich is imported by what prints, never at the top of a file.
"""
