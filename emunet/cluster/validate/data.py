"""What objects may say that hold data: keys, and secrets in base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from emunet.cluster.status import Cause
from emunet.cluster.store import Object
from emunet.cluster.validate.causes import wrong

_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")


def config_map(item: Object) -> Iterator[Cause]:
    """A ConfigMap: keys that can be names of files."""
    for group in ("data", "binaryData"):
        for key in item.get(group, {}):
            if not _CONFIG_KEY.fullmatch(key) or key in (".", ".."):
                yield wrong(f"{group}[{key}]", key, "a valid config key must consist of alphanumeric characters, '-',"
                            " '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation"
                            " is '[-._a-zA-Z0-9]+')")  # fmt: skip


def secret(item: Object) -> Iterator[Cause]:
    """A Secret: keys as of a ConfigMap, values in base64."""
    yield from config_map({"data": item.get("data", {})})
    for key, text in item.get("data", {}).items():
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            yield wrong(f"data[{key}]", "<secret contents redacted>", "illegal base64 data")
