"""Loads a model that embeds or ranks, and opens a `PoolingApp` for business."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
from collections.abc import Callable

from serving.errors import BadFile, NoFitError
from serving.generation.thread import TextThread
from serving.gguf import read_header
from serving.llamacpp import binding
from serving.llamacpp.binding_pooling import Pairs, PoolingContext
from serving.llamacpp.pooling import Job, PoolingEngine, Vector
from serving.llamacpp.pooling_server import PoolingApp, PoolingService
from serving.llamacpp.word_pieces import WordPieces
from serving.pooling import ENCODERS, Pooling, Task, pooling_of, task_of

_DOES = {"generate": "generates text", "embed": "embeds texts", "rerank": "ranks documents"}


async def load_pooling(
    options: argparse.Namespace,
    app: PoolingApp,
    on_fatal: Callable[[BaseException], None],
    resident_bytes: Callable[[], dict[str, int]],
) -> None:
    """Load the model on a thread, then take requests. Raises BadFile, NoFitError.

    `on_fatal` is told of the death of the engine's thread, on that thread.
    """
    model, context, words, pairs = await asyncio.to_thread(open_pooling, options, app)
    loop = asyncio.get_running_loop()

    def post(done: list[tuple[Job, list[Vector]]]) -> None:
        loop.call_soon_threadsafe(deliver, done)

    is_bound = options.cores and "OMP_PROC_BIND" in os.environ
    engine = PoolingEngine(
        context, post=post, on_fatal=on_fatal, core=int(options.cores.split(",")[0]) if is_bound else None
    )
    engine.start()
    gc.collect()
    gc.freeze()
    alias = options.alias or options.model.stem
    longest = min(options.ctx, model.n_ctx_train)
    app.service = PoolingService(
        alias=alias,
        task=options.task,
        model=model,
        engine=engine,
        text=TextThread(),
        words=words,
        pairs=pairs,
        context=longest,
        width=context.width,
        max_outstanding=options.parallel + options.max_queue,
        facts={
            "model": alias,
            "task": options.task,
            "n_ctx_seq": longest,
            "n_seq_max": options.parallel,
            "kv_tokens": context.n_ctx if context.memory else 0,
            "kv_layout": "unified",
            "embedding_length": context.width,
            "memory": resident_bytes(),
            "library": binding.library_version(),
        },
    )


def open_pooling(
    options: argparse.Namespace, app: PoolingApp
) -> tuple[binding.Model, PoolingContext, WordPieces | None, Pairs | None]:
    """Model and context as asked for. Raises BadFile, NoFitError."""
    header = read_header(options.model)
    task: Task = task_of(header)
    pooling: Pooling | None = pooling_of(header)
    if task != options.task:
        raise BadFile(f"`{options.model}` {_DOES[task]}, and `--task {options.task}` was asked for")
    if pooling is None:
        raise BadFile(
            f"`{options.model}` does not say how texts are pooled (`{header.architecture}.pooling_type`)",
            hint="convert the model again, with its modules.json beside its weights",
        )
    binding.start_backend()

    def progress(fraction: float) -> None:
        app.loading.progress = fraction

    try:
        model = binding.Model(options.model, load_mode=options.load_mode, on_progress=progress)
    except binding.LoadError as error:
        raise BadFile(f"llama.cpp could not load `{options.model}`: {error}") from error
    app.loading.stage = "context"
    longest = min(options.ctx, model.n_ctx_train)
    try:
        words = WordPieces(model) if model.metadata("tokenizer.ggml.model") == "bert" else None
        pairs = Pairs(model) if task == "rerank" else None
    except binding.LoadError as error:
        raise BadFile(f"`{options.model}` cannot be served: {error}") from error
    try:
        context = PoolingContext(
            model,
            pooling,
            is_encoder=header.architecture in ENCODERS,
            longest=longest,
            sequences=min(options.parallel, binding.MAX_SEQUENCES),
            threads=options.threads or len(os.sched_getaffinity(0)),
        )
    except binding.LoadError as error:
        raise NoFitError(
            f"llama.cpp could not make a context for texts of {longest} tokens: {error}", hint="lower --ctx"
        ) from error
    if task == "rerank" and context.width != 1:
        raise BadFile(f"`{options.model}` tells {context.width} classes apart; a reranker has one score")
    return model, context, words, pairs


def deliver(done: list[tuple[Job, list[Vector]]]) -> None:
    """On the event loop: hand each request its vectors."""
    for job, vectors in done:
        job.on_done(vectors)
