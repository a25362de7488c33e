"""What reaches a terminal: foreign text with its control characters escaped, and commands to paste.

A text may come from anybody: a corpus, a model file, a prompt, the name of a file. On a terminal it
must show and do nothing else; what is no terminal gets it exactly.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import unicodedata
from collections.abc import Iterable

_SIGNS = {"\n": "↵", "\t": "→", "\x7f": "␡", "": "∎"}
_KEPT = "\n\t\u200c\u200d"
"""Line ends, tabs, and the joiners of scripts and emoji do no harm in running text."""
_SPELLED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'"}


def visible(character: str) -> str:
    """Return a character that shows on a terminal and does nothing to it.

    Control characters become their signs; other ones without a shape, such as the marks of writing
    direction, and surrogates, are spelled out: `\\u202e`.
    """
    if character in _SIGNS:
        return _SIGNS[character]
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    is_shapeless = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return repr(character)[1:-1] if is_shapeless else character


def visible_text(text: str, limit: int = 0) -> str:
    """Return a text in one line, cut to `limit` characters if that is not 0."""
    cut = len(text) > limit > 0
    return "".join(map(visible, text[:limit] if cut else text)) + "…" * cut


def terminal_text(text: str) -> str:
    """Return a text in its own lines that does nothing to a terminal but show."""
    if text.isprintable():
        return text
    return "".join(c if c in _KEPT else visible(c) for c in text)


def say(text: str) -> None:
    """Write a line of commentary to stderr, if that can be written."""
    with contextlib.suppress(OSError):
        print(terminal_text(text), file=sys.stderr, flush=True)


def pasted(words: Iterable[str]) -> str:
    """Return a command that can be pasted into a shell, whatever its words consist of."""
    return " ".join(shlex.quote(w) if w.isprintable() else _dollar_quoted(w) for w in words)


def _dollar_quoted(word: str) -> str:
    """Quote a word with unprintable characters as bash, ksh and zsh read it: `$'a\\nb'`."""

    def spelled(c: str) -> str:
        if c in _SPELLED:
            return _SPELLED[c]
        if "\udc80" <= c <= "\udcff":  # a byte that was not UTF-8 (PEP 383)
            return f"\\x{ord(c) - 0xDC00:02x}"
        return c if c.isprintable() else f"\\U{ord(c):08x}"

    return f"$'{''.join(map(spelled, word))}'"
