"""How fast emunet is, side by side with others: `make bench`.

Not part of what is installed. `python -m benchmarks --help` says what it can do.
"""
