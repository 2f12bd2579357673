"""The `saga` command: one file a verb.

A verb's file is imported to describe its arguments, so it imports nothing slow at its top: what it needs comes in when
the verb runs. What a verb finds goes to standard output, why it could not be done to standard error. Exit codes: 0 it
is done; 1 it was done, and found something wrong; 2 it could not be done; 130 it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import SagaError
from . import db, demo

VERBS = (db, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except SagaError as error:
        print(f"saga {arguments.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nsaga {arguments.verb}: interrupted", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="saga", description="Look after sagas.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(title="verbs", dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        verb.add_to(verbs)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .. import __version__

        print(f"saga-orchestrator {__version__}")
        parser.exit()
