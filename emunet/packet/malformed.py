"""The one error that parsers raise.

Bytes from a wire are never trusted: whatever is wrong with them, a parser of
this package raises Malformed with a plain sentence (what was found, what was
expected), never IndexError, struct.error or a hang. Whoever asked turns it into
a drop with a reason.
"""

from __future__ import annotations


class Malformed(ValueError):
    """The bytes are not a well-formed message of the expected format. `str()` is a plain sentence."""
