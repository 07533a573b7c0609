"""A gateway in front of one scripted engine, as a process: prints a JSON line per thing that its listener is told."""

import contextlib
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

from serving.engines.confinement.sealing import seal
from serving.engines.restart import RestartPolicy
from serving.engines.runtime import root_of
from serving.engines.spec import Capabilities, EngineSpec
from serving.errors import ServingError
from serving.gateway.config import GatewayConfig
from serving.gateway.guard import open_guard
from serving.gateway.run import serve
from serving.gateway.tls import TlsFiles
from serving.openai import Limits
from serving.settings import load_settings
from serving.telemetry import logs


class Printer:
    def on_progress(self, model: str, fraction: float, stage: str) -> None:
        self.say("progress", f"{fraction:.2f} {stage}")

    def on_ready(self, url: str) -> None:
        self.say("ready", url)

    def on_engine_event(self, text: str) -> None:
        self.say("engine", text)

    def on_drain(self) -> None:
        self.say("drain", "")

    @staticmethod
    def say(what: str, text: str) -> None:
        sys.stdout.write(json.dumps([what, text]) + "\n")
        sys.stdout.flush()


def named_in(argv: list[str], socket: Path) -> tuple[Path, ...]:
    """What a command line names and is there, its socket apart: scripts and weights."""
    words = (word for word in argv[1:] if word.startswith("/") and word != str(socket))
    return tuple(Path(word) for word in words if Path(word).exists())


def main() -> int:
    given = json.loads(sys.argv[1])
    restart = RestartPolicy(**{"backoff_s": 0.05, "backoff_max_s": 0.2, **given.get("restart", {})})
    if (tls := given.get("config", {}).get("tls")) is not None:
        given["config"]["tls"] = TlsFiles(**{name: Path(file) for name, file in tls.items()})
    config = replace(
        GatewayConfig(port=0, restart=restart),
        limits=Limits(**given.get("limits", {})),
        **given.get("config", {}),
    )
    socket = Path(given["socket"])
    argv = given.get("argv") or [
        sys.executable,
        str(Path(__file__).with_name("scripted_engine.py")),
        "--uds",
        str(socket),
        *given.get("engine", []),
    ]
    environment = {"PATH": "/usr/bin:/bin", "MARK": "from-the-spec", **given.get("env", {})}
    specs = [
        EngineSpec(
            "m",
            "llamacpp",
            tuple(argv),
            tuple(environment.items()),
            socket,
            reads=(*named_in(argv, socket), *map(Path, given.get("shown", ()))),
            writes=(root_of(socket).parent / "recorded",),
        )
    ]
    for other in given.get("others", ()):
        capabilities = Capabilities(tasks=frozenset(other["tasks"]))
        specs.append(
            EngineSpec(
                other["model"],
                "llamacpp",
                tuple(other["argv"]),
                tuple(environment.items()),
                Path(other["socket"]),
                capabilities=capabilities,
                reads=named_in(other["argv"], Path(other["socket"])),
            )
        )
    logs.setup("json", given.get("log", "info"))
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        sealed = seal(specs, given.get("sealed", "best-effort"), root_of(socket))
        with contextlib.ExitStack() as stack:
            guard = None
            if "settings" in given:
                guard = stack.enter_context(open_guard(load_settings(Path(given["settings"]))))
            return serve(sealed.specs, config, Printer(), guard=guard)
    except ServingError as error:
        sys.stderr.write(error.for_terminal() + "\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
