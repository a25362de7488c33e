"""Records for programs: TSV with a heading, or JSON lines, at full precision.

A text stays in its TSV cell by the escapes of JSON: `\\\\`, `\\t`, `\\n`, `\\r`, and `\\u0000` for
other control characters, lone surrogates, and a `#` at the beginning, which marks totals.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_UNSAFE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|^#")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Records:
    """Writes records to stdout, one a line, all with the fields of the first."""

    def __init__(self, *, as_json: bool) -> None:
        """Write nothing yet."""
        self._as_json = as_json
        self._fields: tuple[str, ...] = ()

    def write(self, record: Mapping[str, Any], *, label: str = "") -> None:
        """Write a record.

        Args:
            record: values by field.
            label: of a record about all texts, such as `total`: it stands, after `#`, in the first
                TSV column, and as `record` in JSON.
        """
        if self._as_json:
            print(to_json({**record, "record": label} if label else record))
            return
        if not self._fields:
            self._fields = tuple(record)
            print("\t".join(self._fields))
        cells = [_cell(record[field]) for field in self._fields]
        if label:
            cells[0] = f"#{label}"
        print("\t".join(cells))


def to_json(record: Mapping[str, Any]) -> str:
    """Return one line of JSON; what JSON has no number for (NaN, infinity) becomes null."""
    values = {k: None if _is_odd(v) else v for k, v in record.items()}
    narrow = not (sys.stdout.encoding or "ascii").lower().startswith("utf")
    line = json.dumps(values, ensure_ascii=narrow, allow_nan=False)
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        value = int(value)
    return escape(value) if isinstance(value, str) else repr(value)


def escape(text: str) -> str:
    """Return a text that keeps to one cell of one line."""
    return _UNSAFE.sub(lambda match: _SHORT.get(match[0], f"\\u{ord(match[0]):04x}"), text)
