"""A coroutine that is begun in a callback ends as it would have in a task."""

import asyncio

import pytest

from serving import eager


async def test_what_need_not_wait_is_done_at_once() -> None:
    """Nothing is left of it."""
    done = []

    async def job() -> None:
        done.append(1)

    assert eager.begin(job()) is None
    assert done == [1]


async def test_what_has_to_wait_goes_on_where_it_is_awaited() -> None:
    """Over several waits, with what each of them gives."""
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    seen: list[str] = []

    async def job() -> None:
        seen.append(await first)
        await asyncio.sleep(0)
        seen.append(await second)

    rest = eager.begin(job())
    assert rest is not None
    loop.call_soon(first.set_result, "a")
    loop.call_later(0.01, second.set_result, "b")
    await asyncio.create_task(rest)
    assert seen == ["a", "b"]


async def test_an_error_is_raised_where_it_happens() -> None:
    """Before the first wait by `begin`, after it by whoever awaits; a failed future's error reaches the job."""
    future = asyncio.get_running_loop().create_future()

    async def at_once() -> None:
        raise ValueError("now")

    async def later() -> None:
        try:
            await future
        except KeyError:
            raise ValueError("later") from None

    with pytest.raises(ValueError, match="now"):
        eager.begin(at_once())
    rest = eager.begin(later())
    assert rest is not None
    future.set_exception(KeyError("x"))
    with pytest.raises(ValueError, match="later"):
        await rest


async def test_cancelled_or_closed_its_cleanup_runs() -> None:
    """Also where nobody ever awaited it."""
    ended: list[str] = []

    async def job(name: str) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(name)

    rest = eager.begin(job("cancelled"))
    assert rest is not None
    task = asyncio.create_task(rest)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    unawaited = eager.begin(job("closed"))
    assert unawaited is not None
    unawaited.close()
    del unawaited
    assert ended == ["cancelled", "closed"]
