"""Answers of servers inside to requests that are not clean: remembered as those of an engine are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from serving.egress.heard import Heard
from serving.egress.judge import Judge, Judged
from serving.egress.texts import texts_of_answer
from serving.openai.asgi import Send


class Following:
    """Listens to what is sent on."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._keeping: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def follow(self, judged: Judged, body: Mapping[str, object], domain: str, send: Send) -> AsyncIterator[Send]:
        """`send`, listened to where the answer to this request is to be remembered.

        The answer is announced before its first byte, and what was sent of it is remembered however it ends: where
        this process is killed in the midst, a hole in the store tells of it.
        """
        if not self._judge.is_sensitive(judged):
            yield send
            return
        number = await self._judge.await_answer(domain, judged.doubt)
        heard = Heard()

        async def listening(message: dict[str, Any]) -> None:
            heard.take(message.get("body", b""))
            await send(message)

        try:
            if self._judge.keeps_texts(judged):
                await self._judge.remember(dict(body), domain)
            yield listening
        finally:
            # who is cancelled here, because its client left, has been answered with what was heard until now
            keeping = asyncio.create_task(self._keep(heard.whole, domain, number))
            self._keeping.add(keeping)
            keeping.add_done_callback(self._keeping.discard)
            await asyncio.shield(keeping)

    async def _keep(self, answer: bytes | None, domain: str, number: int) -> None:
        texts = None if answer is None else await asyncio.to_thread(texts_of_answer, answer)
        await self._judge.remember_answer(texts, domain, number)
