"""The command line, `serve`: data to stdout, everything else to stderr, one error and a hint, never a traceback."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import sys

from serving.errors import InternalError, ServingError


def main() -> None:
    """Run `serve` with this process's arguments and exit with the documented status (docs/exit-statuses.md)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run `serve` with these arguments; returns the exit status. Errors are printed to stderr."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        from serving.cli.app import invoke

        return invoke(arguments)
    except ServingError as error:
        if debug:
            raise
        _say(error, as_json="--json" in arguments)
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130
    except BrokenPipeError:
        # The reader of our stdout has gone (`serve models list | head`); nothing is left to say, nowhere to say it.
        sys.stderr.close()
        return 0
    except Exception as failure:
        if debug:
            raise
        message = f"`serve` failed in a way it should not: {type(failure).__name__}: {failure}"
        internal = InternalError(message, hint="run it again with --debug and report what it prints")
        _say(internal, as_json="--json" in arguments)
        return internal.exit_status


def _say(error: ServingError, *, as_json: bool) -> None:
    if not as_json:
        sys.stderr.write(error.for_terminal() + "\n")
        return
    import json

    facts = {"code": error.code, "message": error.message, "hint": error.hint, "exit_status": error.exit_status}
    sys.stderr.write(json.dumps({"level": "error", "event": "fatal", **facts}, ensure_ascii=False) + "\n")
