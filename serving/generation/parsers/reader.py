"""Text that arrives in pieces, read by parsers that are written as if it were all there.

A parser is a generator: where it needs to know more than has arrived it yields, and goes on when there is more. What
it decides depends on the text alone and never on where the pieces were cut, and no character is read twice, so the
time taken grows with the text and not faster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from functools import lru_cache
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""A parser, or a part of one, that waits for text where it yields, and comes to a T."""

SPACE: Final = re.compile(r"[ \t\r\n]*")


class Broken(Exception):
    """The text is not what it began to look like, or ended too early."""


class Reader:
    """The text of one answer, and how far it has been read."""

    __slots__ = ("_at", "_kept", "_text", "ended")

    def __init__(self, text: str = "", *, ended: bool = False) -> None:
        self._text = text
        self._at = 0
        self._kept: list[str] | None = None
        self.ended = ended
        """No more text will arrive."""

    def feed(self, text: str) -> None:
        """Add text at the end."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def keep(self) -> None:
        """From here on remember what is read, so that it can be given back."""
        self._kept = []

    def kept(self) -> str:
        """What was read since `keep`; it is remembered no longer."""
        text = "".join(self._kept or ())
        self._kept = None
        return text

    def unread(self, text: str) -> None:
        """Put back text that was read just now."""
        self._text = text + self._text[self._at :]
        self._at = 0

    def take(self, count: int) -> str:
        """Read that many characters, which must have arrived."""
        text = self._text[self._at : self._at + count]
        self._at += count
        if self._kept is not None:
            self._kept.append(text)
        return text

    def take_all(self) -> str:
        """Read what has arrived."""
        return self.take(len(self._text) - self._at)

    def peek(self, count: int = 1) -> Steps[str]:
        """The next characters, unread; fewer at the end of the answer."""
        while len(self._text) - self._at < count and not self.ended:
            yield
        return self._text[self._at : self._at + count]

    def run(self, pattern: re.Pattern[str], sink: Callable[[str], object]) -> Steps[None]:
        """Read what matches, however long: `pattern` is one repeated class of characters."""
        while True:
            match = pattern.match(self._text, self._at)
            if match is not None and match.end() > self._at:
                sink(self.take(match.end() - self._at))
            if self._at < len(self._text) or self.ended:
                return
            yield

    def next_of(self, texts: Iterable[str]) -> Steps[str | None]:
        """Which of `texts` comes next, unread; the longest where several do."""
        longest_first = sorted(texts, key=len, reverse=True)
        while True:
            rest = self._text[self._at : self._at + len(longest_first[0])] if longest_first else ""
            undecided = False
            for text in longest_first:
                if rest.startswith(text):
                    return text
                if not self.ended and text.startswith(rest):
                    undecided = True
                    break
            if not undecided:
                return None
            yield

    def ends_within(self, texts: Iterable[str]) -> bool:
        """The answer ended in the middle of one of `texts`, or with nothing unread."""
        rest = self._text[self._at :]
        return self.ended and (not rest or any(text.startswith(rest) for text in texts))

    def pass_until(self, markers: tuple[str, ...], sink: Callable[[str], object]) -> Steps[str | None]:
        """Read up to the first of `markers`, which stays unread and is returned; None is the end of the answer.

        The end of the text so far waits while it may be the beginning of a marker.
        """
        pattern, heads, longest = _search_for(markers)
        while True:
            found = pattern.search(self._text, self._at)
            if found is not None:
                self._pass(found.start(), sink)
                return found[0]
            end = len(self._text)
            if self.ended:
                self._pass(end, sink)
                return None
            for start in range(max(self._at, end - longest + 1), end):
                if self._text[start] in heads and any(marker.startswith(self._text[start:]) for marker in markers):
                    end = start
                    break
            self._pass(end, sink)
            yield

    def _pass(self, end: int, sink: Callable[[str], object]) -> None:
        if end > self._at:
            sink(self.take(end - self._at))


@lru_cache(maxsize=256)
def _search_for(markers: tuple[str, ...]) -> tuple[re.Pattern[str], frozenset[str], int]:
    longest_first = sorted(markers, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return pattern, frozenset(marker[0] for marker in markers), len(longest_first[0])
