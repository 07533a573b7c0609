"""`python -m serving.hf --model DIR …`: the engine as a process of its own (docs/engine-protocol.md)."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import sys
from pathlib import Path

import jinja2
import uvicorn
import uvloop

from serving import tripwire
from serving.errors import BadFile, EngineFailed, InternalError, NoFitError, ServingError
from serving.generation.template import ChatTemplate
from serving.generation.thread import TextThread
from serving.hf.directory import Contents, inspect
from serving.hf.engine import Engine, Request, Update
from serving.hf.proof import takes_chunks
from serving.hf.server import App, Service
from serving.openai import Limits
from serving.openai.peers import CheckedProtocol
from serving.openai.process import die, resident_bytes
from serving.telemetry.logs import setup

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What the libraries read when they are imported."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m serving.hf", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="directory with config.json and .safetensors files")
    parser.add_argument("--uds", type=Path, help="Unix socket to listen on")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--alias", help="name that requests use; default: the directory's")
    parser.add_argument("--ctx", type=int, default=4096, help="tokens that prompt and answer may have together")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: the checkpoint's own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core it may use")
    parser.add_argument("--max-queue", type=int, default=256, help="requests that may wait")
    parser.add_argument("--unknown-fields", choices=("refuse", "ignore"), default="refuse")
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    parser.add_argument("--log-level", default="info")
    return parser


def main() -> None:
    """Serve until told to stop."""
    options = arguments().parse_args()
    faulthandler.enable()
    setup(options.log_format, options.log_level)
    tripwire.install(has_ip=options.uds is None)
    os.environ.update(_OFFLINE)
    try:
        contents = inspect(options.model)
    except ServingError as error:
        die(error)
    uvloop.run(serve(options, contents))


async def serve(options: argparse.Namespace, contents: Contents) -> None:
    """Bind the socket, then load: `/ready` tells how far it is."""
    app = App(Limits(unknown_fields=options.unknown_fields))
    config = uvicorn.Config(
        app,
        uds=None if options.uds is None else str(options.uds),
        host=options.host,
        port=options.port,
        http=CheckedProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    loading = asyncio.create_task(load(options, contents, app))
    await server.serve()
    loading.cancel()


async def load(options: argparse.Namespace, contents: Contents, app: App) -> None:
    """Load the model on a thread, then open for business. A model that cannot be served ends the process."""
    text = TextThread()
    loop = asyncio.get_running_loop()
    try:
        app.service = await asyncio.to_thread(open_service, options, contents, app, text, loop)
    except ServingError as error:
        die(error)
    except MemoryError:
        hint = "use --dtype bfloat16 if it is not, or a smaller model"
        die(NoFitError(f"`{contents.path}` leaves no memory to compute in", hint=hint))
    except Exception as error:  # noqa: BLE001 - the last stop: said in one line, then the process ends
        die(InternalError(f"the engine failed to start: {type(error).__name__}: {error}"))


def open_service(
    options: argparse.Namespace, contents: Contents, app: App, text: TextThread, loop: asyncio.AbstractEventLoop
) -> Service:
    """The model, proved and running. Raises BadFile, NoFitError, GpuMissing, EngineFailed."""
    try:
        from serving.hf import binding  # noqa: PLC0415 - takes seconds, and the socket is bound meanwhile
    except ImportError as error:
        raise EngineFailed(
            f"`{sys.executable}` has no PyTorch with Transformers that works: {error}",
            hint="pip install 'torch>=2.6' 'transformers>=4.55,<6' into that environment",
        ) from error
    config = binding.read_config(contents)
    tokenizer = binding.Tokenizer(contents)
    template = None
    try:
        if tokenizer.chat_template:
            control = list(tokenizer.control.values())
            template = ChatTemplate(
                tokenizer.chat_template, bos=tokenizer.bos, eos=tokenizer.eos, control_texts=control
            )
    except jinja2.TemplateError as error:
        raise BadFile(
            f"the chat template in `{contents.path}` is not Jinja: {error}",
            hint="correct it, or remove it to serve /v1/completions alone",
        ) from error
    app.loading.begin_weights(contents.stored_bytes)
    threads = options.threads or len(os.sched_getaffinity(0))
    model = binding.Model(contents, config, dtype=options.dtype, device=options.device, threads=threads)
    app.loading.stage = "proof"
    in_chunks = takes_chunks(model)
    engine = Engine(
        model,
        ends=model.ends | ({tokenizer.eos_id} if tokenizer.eos_id is not None else set()),
        control=frozenset(tokenizer.control),
        decode=tokenizer.text_of,
        takes_chunks=in_chunks,
        post=lambda request, update: deliver(loop, request, update),
        fatal=(binding.Lost,),
        on_fatal=lambda error: die(EngineFailed(f"the engine thread died: {type(error).__name__}: {error}")),
    )
    engine.start()
    context = min(options.ctx, model.n_ctx_train or options.ctx)
    alias = options.alias or contents.path.resolve().name
    return Service(
        alias=alias,
        engine=engine,
        text=text,
        tokenizer=tokenizer,
        template=template,
        n_vocab=model.n_vocab,
        context=context,
        max_queue=options.max_queue,
        facts={
            "model": alias,
            "n_ctx_seq": context,
            "n_seq_max": 1,
            "kv_tokens": context,
            "kv_layout": None,
            "memory": resident_bytes(),
            "shares_prefixes": None,
            "dtype": model.dtype,
            "device": model.device,
            "prompt_in_chunks": in_chunks,
            "library": binding.library_version(),
        },
    )


def deliver(loop: asyncio.AbstractEventLoop, request: Request, update: Update) -> None:
    """From the engine's thread to the coroutine that waits for it."""
    loop.call_soon_threadsafe(request.on_update, update)


if __name__ == "__main__":
    main()
