"""`python -m serving.llamacpp --model FILE …`: the engine as a process of its own (docs/engine-protocol.md)."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import os
import sys
from pathlib import Path
from typing import NoReturn

import jinja2
import uvicorn
import uvloop

from serving import tripwire
from serving.errors import BadFile, EngineFailed, FileMissing, InternalError, NoFitError, ServingError
from serving.generation.compiler import Grammars
from serving.generation.parsers import KNOWN_REASONING_PARSERS, KNOWN_TOOL_PARSERS
from serving.generation.template import ChatTemplate
from serving.generation.thread import TextThread
from serving.llamacpp import binding
from serving.llamacpp.engine import Engine, Request, Update
from serving.llamacpp.line import Protocol
from serving.llamacpp.pooling_server import PoolingApp
from serving.llamacpp.pooling_start import load_pooling
from serving.llamacpp.reading import reading_of
from serving.llamacpp.scheduler import Config
from serving.llamacpp.server import App, Service
from serving.openai import Limits
from serving.openai.limits import serves_of
from serving.openai.process import die, resident_bytes
from serving.pooling import ENCODERS
from serving.telemetry.logs import setup

_CACHED_SEQUENCES = 32
"""Sequence ids beyond the running ones that a unified cache keeps for prefixes."""
_SWITCH_INTERVAL_S = 0.0005
"""How long one Python thread may keep another from running. The default, 5 ms, is a fifth of a step: the engine
thread would wait that long to come back from every decode that ended while the event loop was busy."""


def arguments() -> argparse.ArgumentParser:
    """The command line; the planner writes it, a person may."""
    parser = argparse.ArgumentParser(prog="python -m serving.llamacpp", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--uds", type=Path, help="Unix socket to listen on")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--alias", help="name that requests use; default: the file's")
    parser.add_argument("--task", choices=("generate", "embed", "rerank"), default="generate")
    parser.add_argument("--kv-layout", choices=("unified", "streams"), default="streams")
    parser.add_argument("--parallel", type=int, default=16, help="sequences computed at the same time")
    parser.add_argument("--ctx", type=int, default=4096, help="tokens one sequence may hold")
    parser.add_argument("--kv-tokens", type=int, default=0, help="cells in all (unified); 0: parallel × ctx")
    parser.add_argument("--kv-dtype", choices=("f16", "bf16", "f32", "q8_0"), default="f16")
    parser.add_argument("--ubatch", type=int, default=512, help="tokens computed at once")
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core it may use")
    parser.add_argument("--cores", help="core ids to run on, such as 0,1")
    parser.add_argument("--load-mode", choices=("mmap", "none"), default="mmap")
    parser.add_argument("--gpu-layers", type=int, default=0, help="layers on a GPU, where the build has one")
    parser.add_argument("--swa-full", action="store_true", help="keep the whole window of sliding-window layers")
    parser.add_argument("--max-queue", type=int, default=256, help="requests that may wait")
    parser.add_argument("--step-ms", type=float, default=250.0, help="prompt work in one step, at most")
    parser.add_argument("--snapshot-bytes", type=int, default=256 << 20, help="host memory for prefixes (streams)")
    parser.add_argument("--tool-parser", choices=KNOWN_TOOL_PARSERS, help="how the model writes tool calls")
    parser.add_argument("--reasoning-parser", choices=KNOWN_REASONING_PARSERS, help="how it marks its reasoning")
    parser.add_argument("--unknown-fields", choices=("refuse", "ignore"), default="refuse")
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    parser.add_argument("--log-level", default="info")
    return parser


def main() -> None:
    """Serve until told to stop."""
    options = arguments().parse_args()
    faulthandler.enable()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    setup(options.log_format, options.log_level)
    tripwire.install(has_ip=options.uds is None)
    if options.cores:
        # also undoes libgomp's binding of this thread, which serves HTTP and computes nothing
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    if not options.model.is_file():
        die(FileMissing(f"there is no file `{options.model}`"))
    uvloop.run(serve(options))


async def serve(options: argparse.Namespace) -> None:
    """Bind the socket, then load: `/ready` tells how far it is."""
    # The gateway holds requests to what its settings say; this is the most that they can say.
    limits = Limits(unknown_fields=options.unknown_fields, n=128, top_logprobs=100)
    app = App(limits, serves_of(options.tool_parser)) if options.task == "generate" else PoolingApp(limits)
    config = uvicorn.Config(
        app,
        uds=None if options.uds is None else str(options.uds),
        host=options.host,
        port=options.port,
        http=Protocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()
    loading = asyncio.create_task(load(options, app, loop) if isinstance(app, App) else load_whole_texts(options, app))
    await server.serve()
    loading.cancel()
    if isinstance(app, App) and app.service is not None:
        app.service.grammars.close()


async def load_whole_texts(options: argparse.Namespace, app: PoolingApp) -> None:
    """As `load`, for a model that embeds or ranks."""
    try:
        await load_pooling(options, app, thread_died, resident_bytes)
    except ServingError as error:
        die(error)
    except Exception as error:  # noqa: BLE001 - as in `load`
        die(InternalError(f"the engine failed to start: {type(error).__name__}: {error}"))


async def load(options: argparse.Namespace, app: App, loop: asyncio.AbstractEventLoop) -> None:
    """Load the model on a thread, then open for business. A model that cannot be served ends the process."""
    try:
        model, context, scheduling = await asyncio.to_thread(open_model, options, app)
        text = TextThread()
        source = model.chat_template()
        template = None
        if source is not None:
            try:
                template = ChatTemplate(
                    source,
                    bos=model.special_text("bos"),
                    eos=model.special_text("eos"),
                    control_texts=model.control_texts(),
                )
            except jinja2.TemplateError as error:
                raise BadFile(
                    f"the chat template of `{options.model}` is not Jinja: {error}",
                    hint="correct `tokenizer.chat_template` in the file, or remove it to serve /v1/completions alone",
                ) from error
    except ServingError as error:
        die(error)
    except Exception as error:  # noqa: BLE001 - the last stop: said in one line, then the process ends
        die(InternalError(f"the engine failed to start: {type(error).__name__}: {error}"))

    def post(batch: list[tuple[Request, Update]]) -> None:
        loop.call_soon_threadsafe(deliver, batch)

    limit = min(options.ctx, context.n_ctx_seq)
    is_bound = options.cores and "OMP_PROC_BIND" in os.environ
    engine = Engine(
        model,
        context,
        scheduling,
        context_length=limit,
        snapshot_bytes=options.snapshot_bytes,
        post=post,
        core=int(options.cores.split(",")[0]) if is_bound else None,
        on_fatal=thread_died,
    )
    engine.start()
    # What is there now stays; a collection that walks it would stop the engine thread in the middle of a step.
    gc.collect()
    gc.freeze()
    alias = options.alias or options.model.stem
    app.service = Service(
        alias=alias,
        model=model,
        engine=engine,
        text=text,
        template=template,
        grammars=Grammars(model.vocabulary),
        context=limit,
        parallel=scheduling.parallel,
        max_queue=options.max_queue,
        reading=reading_of(model, options.tool_parser, options.reasoning_parser),
        facts={
            "model": alias,
            "n_ctx_seq": limit,
            "n_seq_max": scheduling.parallel,
            "kv_tokens": context.n_ctx,
            "kv_layout": scheduling.layout,
            "memory": resident_bytes(),
            "shares_prefixes": "any" if context.shares_partially else "whole",
            "library": binding.library_version(),
        },
    )


def open_model(options: argparse.Namespace, app: App) -> tuple[binding.Model, binding.Context, Config]:
    """Model and context as asked for. Raises BadFile, NoFitError."""
    binding.start_backend()

    def progress(fraction: float) -> None:
        app.loading.progress = fraction

    try:
        model = binding.Model(
            options.model,
            load_mode=options.load_mode,
            gpu_layers=options.gpu_layers,
            on_progress=progress,
        )
    except binding.LoadError as error:
        raise BadFile(f"llama.cpp could not load `{options.model}`: {error}") from error
    if model.has_encoder or not model.has_decoder or model.metadata("general.architecture") in ENCODERS:
        raise BadFile(f"`{options.model}` is an encoder; it cannot generate text", hint="use --task embed or rerank")
    app.loading.stage = "context"
    layout: binding.KvLayout = options.kv_layout
    if layout == "unified" and not (model.shares_partially or options.swa_full):
        # one pool shares cells between sequences, which these memories cannot do
        layout = "streams"
    if layout == "unified":
        cells = options.kv_tokens or options.parallel * options.ctx
        sequences = min(options.parallel + _CACHED_SEQUENCES, binding.MAX_SEQUENCES)
    else:
        cells, sequences = options.parallel * options.ctx, options.parallel
    try:
        context = binding.Context(
            model,
            binding.ContextOptions(
                kv_layout=layout,
                n_ctx=cells,
                n_seq_max=sequences,
                n_batch=max(options.ubatch, sequences),
                n_ubatch=options.ubatch,
                threads=options.threads or len(os.sched_getaffinity(0)),
                kv_dtype=options.kv_dtype,
                swa_full=options.swa_full,
                offload=options.gpu_layers > 0,
            ),
        )
    except binding.LoadError as error:
        raise NoFitError(
            f"llama.cpp could not make a context of {cells} tokens: {error}",
            hint="lower --ctx or --parallel",
        ) from error
    config = Config(
        layout=layout,
        parallel=options.parallel,
        capacity=context.n_ctx,
        batch=context.n_batch,
        step_s=options.step_ms / 1000,
    )
    return model, context, config


def deliver(batch: list[tuple[Request, Update]]) -> None:
    """On the event loop: hand each update to the coroutine that waits for it."""
    for request, update in batch:
        request.on_update(update)


def thread_died(error: BaseException) -> NoReturn:
    """The process cannot go on without the thread that computes."""
    die(EngineFailed(f"the engine thread died: {type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
