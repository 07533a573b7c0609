"""From tokens to text that may be sent: whole in UTF-8, with stop strings found before they leave."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Incremental detokeniser of one answer.

    `push` takes the bytes of one token and returns the text that is certain to be part of the answer. Bytes of an
    unfinished character wait, and so does text that might be the beginning of a stop string. Once a stop string has
    appeared `stopped` is true, and neither it nor what follows is ever returned. Bytes that can never become a
    character come out as U+FFFD, as in Transformers and llama-server.
    """

    __slots__ = ("_decoder", "_held", "_longest", "_stops", "stopped")

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max((len(stop) for stop in self._stops), default=0)
        self._held = ""
        self.stopped = False

    def push(self, piece: bytes, *, may_stop: bool = True) -> str:
        """Text that this token makes certain; often all of it, sometimes none.

        `may_stop` is false while an answer is shorter than it must be: stop strings are then ordinary text.
        """
        text = self._decoder.decode(piece)
        if not self._stops or not may_stop:
            return text
        return self._search(text, final=False)

    def finish(self) -> str:
        """What was still held back, at the end of an answer that no stop string ended."""
        text = self._decoder.decode(b"", final=True)
        if not self._stops:
            return text
        return self._search(text, final=True)

    def _search(self, text: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = 0 if final else self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
