"""
The ``uringio`` command: arguments in, exit status out.

Subcommands live in modules of their own, imported only when they are asked for.  Exit status: 0
when it worked (also a server that was stopped by Ctrl-C: that is how it ends), 1 when it failed on
the way, 2 when it could not begin.
"""

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]

_CP_DESCRIPTION = """\
Copy files and folders with all that is in them: modes, times, links, hard links, holes and
extended attributes are kept, owner and group if you are root, blocks shared where the
filesystem can.

If DEST is a folder, each SOURCE is copied into it by its own name; with several of them it
must be one. Links are copied as links. What fails is told in one line, and the rest copied.
"""
_CP_EPILOG = """\
A copy is whole or not there: Ctrl-C, or a failure, removes the file that is incomplete. A file
that takes the place of another is made as .uringio-* beside it, then renamed.
Exit status: 0 all copied (and verified), 1 something was not, 2 wrong usage, 130 Ctrl-C.
"""

_BACKENDS = ("auto", "uring", "epoll", "kqueue", "poll")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: The arguments, by default those of the process.

    Returns:
        The exit status; argparse's own for bad usage and ``--help``.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["bench"]:  # which knows so many arguments that it reads them itself
        from . import bench

        return bench.main(given[1:])
    parser = _parser()
    try:
        options, foreign = parser.parse_known_args(given)
        if foreign:  # told by the command that does not know them, with its own usage
            options.parser.error(f"unrecognized arguments: {' '.join(foreign)}")
    except SystemExit as request:
        return request.code if isinstance(request.code, int) else 2
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    from uringio._driver.choice import chosen_backend
    from uringio.errors import UsageError

    try:
        chosen_backend(getattr(options, "backend", None))
    except UsageError as error:
        print(f"uringio {options.command}: {error}", file=sys.stderr)
        return 2
    if options.command == "probe":
        from .probe import probe

        return probe(is_json=options.json)
    if options.command == "cp":
        from . import cp

        return cp.cp(
            cp.Options(
                sources=tuple(options.sources),
                target=options.target,
                backend=options.backend,
                verify=options.verify,
                is_quiet=options.quiet,
            )
        )
    from .serve import Options, serve

    return serve(
        Options(
            folder=options.folder if options.named_folder is None else options.named_folder,
            host=options.host,
            port=options.port,
            backend=options.backend,
            workers=options.workers,
            index=options.index,
            cors=options.cors,
            headers=tuple(options.header),
            is_quiet=options.quiet,
            grace_seconds=options.grace,
            max_connections=options.max_connections,
            inherited_fd=options.inherited_fd,
            ready_fd=options.ready_fd,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uringio", description="Serve and move files over io_uring, or epoll where it is not."
    )
    parser.set_defaults(command=None, parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    command = commands.add_parser(
        "serve",
        help="serve a folder over HTTP/1.1",
        description="Serve the files of a folder, and nothing outside it, over HTTP/1.1.",
    )
    command.set_defaults(command="serve", parser=command)
    command.add_argument(
        "folder", metavar="DIR", nargs="?", default=".", help="the folder (default: this one)"
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    command.add_argument(
        "--port", type=_port, default=8000, help="port, 0 for any free one (default: %(default)s)"
    )
    command.add_argument(
        "--backend",
        choices=_BACKENDS,
        default="auto",
        help="auto takes io_uring where it works (default: %(default)s)",
    )
    command.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="processes on the one port (default: %(default)s)",
    )
    command.add_argument(
        "--index",
        default="index.html",
        metavar="NAME",
        help="file shown for its folder, '' for none (default: %(default)s)",
    )
    command.add_argument(
        "--cors",
        nargs="?",
        default="",
        const="*",
        metavar="ORIGIN",
        help="let pages of this origin, or of all, read the files",
    )
    command.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a field of every response; may be repeated",
    )
    command.add_argument("--quiet", action="store_true", help="no access log")
    command.add_argument(
        "--grace",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="what requests get to finish once told to stop (default: %(default)g)",
    )
    command.add_argument(
        "--max-connections",
        type=_connections,
        metavar="N",
        help="connections at a time in each process, more wait their turn (default: 8192, or fewer"
        " where half of the descriptors allowed are fewer)",
    )
    # What a parent tells its workers.
    for name in ("--inherited-fd", "--ready-fd"):
        command.add_argument(name, type=int, help=argparse.SUPPRESS)
    command.add_argument("--folder", dest="named_folder", help=argparse.SUPPRESS)
    command = commands.add_parser(
        "probe",
        help="say what io_uring can do here",
        description="Say whether io_uring works here, and if not why and what to do about it.",
        epilog="Exit status: 0, io_uring works; 1, it does not and programs run without; "
        "2, not even that.",
    )
    command.set_defaults(command="probe", parser=command)
    command.add_argument("--json", action="store_true", help="for programs; see docs/probe.md")
    _add_cp(commands.add_parser("cp", help="copy files and folders"))
    commands.add_parser("bench", help="measure echo beside asyncio, uvloop and others")
    return parser


def _add_cp(command: argparse.ArgumentParser) -> None:
    command.description = _CP_DESCRIPTION
    command.epilog = _CP_EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.set_defaults(command="cp", parser=command)
    command.add_argument("sources", metavar="SOURCE", nargs="+", help="a file or folder")
    command.add_argument("target", metavar="DEST", help="the copy's name, or the folder for it")
    command.add_argument(
        "--verify",
        action="store_true",
        help="then read both again, the copy from the device where possible, and compare",
    )
    command.add_argument("--quiet", action="store_true", help="no progress; failures are told")
    command.add_argument(
        "--backend",
        choices=_BACKENDS,
        default="auto",
        help="auto takes io_uring where it works (default: %(default)s)",
    )


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # of which argparse would say that it is no "_whole"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _port(text: str) -> int:
    port = _whole(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is from 0 to 65535, not {port}")
    return port


def _workers(text: str) -> int:
    count = _whole(text)
    if not 1 <= count <= 1024:
        raise argparse.ArgumentTypeError(f"workers are from 1 to 1024, not {count}")
    return count


def _connections(text: str) -> int:
    count = _whole(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"connections are from 1 up, not {count}")
    return count


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"a time is from 0 to 86400 seconds, not {text}")
    return seconds
