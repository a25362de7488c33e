"""Records for programs: TSV with a heading, or JSON lines, at full precision; see docs/formats.md.

TSV is quoted as in CSV (RFC 4180): a text with a quote, tab or line end stands between quotes, and
quotes inside it are doubled. That is what pandas, R and spreadsheets read without further settings.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from charrnn.display.terminal import visible_text

Values = Mapping[str, Any]

_QUOTED = re.compile('["\t\n\r]|^\\s|\\s$')
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHAPELESS = re.compile(
    "[\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
"""Characters that JSON escapes, because they would act on a terminal or be lost in UTF-8."""


class Records:
    """Writes records to stdout, one a line, all with the fields of the first."""

    def __init__(self, *, as_json: bool) -> None:
        """Write nothing yet."""
        self._as_json = as_json
        self._fields: tuple[str, ...] = ()

    def write(self, record: Values) -> None:
        """Write a record, its values by field; what is no number (NaN, infinity) is left empty."""
        if self._as_json:
            print(to_json(record))
            return
        if not self._fields:
            self._fields = tuple(record)
            print("\t".join(self._fields))
        print("\t".join(_cell(record[field]) for field in self._fields))


def with_probability(record: Values) -> dict[str, Any]:
    """Return a record with the probability after its `logprob`; None where a float has none."""
    probability = math.exp(min(record["logprob"], 0.0))
    made: dict[str, Any] = {}
    for name, value in record.items():
        made[name] = value
        if name == "logprob":
            made["probability"] = probability if probability >= sys.float_info.min else None
    return made


def to_json(record: Any) -> str:
    """Return a line of JSON; what JSON has no number for (NaN, infinity) becomes null."""
    narrow = not (sys.stdout.encoding or "ascii").lower().startswith("utf")
    line = json.dumps(_finite(record), ensure_ascii=narrow, allow_nan=False)
    return _SHAPELESS.sub(lambda match: json.dumps(match[0])[1:-1], line)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = to_json(value)
    if isinstance(value, str):
        # a lone surrogate is no character, and has no bytes
        text = _SURROGATE.sub("\ufffd", value)
        if sys.stdout.isatty():
            return visible_text(text)
        return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
    value = _finite(value)
    return "" if value is None else repr(int(value) if isinstance(value, bool) else value)
