"""What a device may be called: the name stands in messages, reports and file names."""

import re

DEVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
"""Letters, digits, spaces, '.', '_' and '-', at most 64 of them; the first is a letter or a digit."""
