"""The command line, `serve`: data to stdout, everything else to stderr, one error and a hint, never a traceback."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Final

from serving.errors import InternalError, ServingError, StartError

INTERRUPTED: Final = 130
"""Status after Ctrl-C before serving began, and after it in any other command."""
_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run `serve` with this process's arguments and exit with the documented status (docs/exit-statuses.md)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run `serve` with these arguments; returns the exit status. Errors are printed to stderr.

    With `--debug` an unexpected error has its trace too; statuses stay what they are.
    """
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    as_json = "--json" in arguments
    try:
        from serving.cli.app import invoke

        status = invoke(arguments)
        sys.stdout.flush()
    except ServingError as error:
        _say(error, as_json=as_json)
        return error.exit_status
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader of our stdout has gone (`serve models list | head`); nothing is left to say, nowhere to say it.
        _give_up_stdout()
        return 0
    except Exception as failure:  # noqa: BLE001 - the last stop: said in one line, with its status
        if isinstance(failure, OSError) and failure.errno in _UNWRITABLE and failure.filename is None:
            _give_up_stdout()
            full = StartError(f"cannot write to stdout: {failure.strerror}", hint="send it where there is room")
            _say(full, as_json=as_json)
            return full.exit_status
        if debug:
            traceback.print_exc()
        message = f"`serve` failed in a way it should not: {type(failure).__name__}: {failure}"
        internal = InternalError(message, hint="run it again with --debug and report what it prints")
        _say(internal, as_json=as_json)
        return internal.exit_status
    if status == INTERRUPTED:
        sys.stderr.write('{"level": "info", "event": "stopped"}\n' if as_json else "stopped\n")
    return status


def _give_up_stdout() -> None:
    """Send what is still to be written nowhere: the interpreter would complain of it once more when it ends."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _say(error: ServingError, *, as_json: bool) -> None:
    if not as_json:
        sys.stderr.write(error.for_terminal() + "\n")
        return
    import json

    facts = {"code": error.code, "message": error.message, "hint": error.hint, "exit_status": error.exit_status}
    sys.stderr.write(json.dumps({"level": "error", "event": "fatal", **facts}, ensure_ascii=False) + "\n")
