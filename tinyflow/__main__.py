"""The command line: ``python -m tinyflow demo | explain | tune | doctor | run | SCRIPT``.

Main function: ``main``. Each command is imported when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

_COMMANDS = {
    "demo": "train softmax regression as native code and show the kernels",
    "explain": "show what became of a script's step: graph, passes, kernels, code, times",
    "tune": "search faster schedules for a script's kernels and keep them in the tuning log",
    "doctor": "versions, machine, caches, measured peaks and a self-test",
    "run": "run a TensorFlow-1 script; `import tensorflow` gives it TinyFlow",
}
_EPILOG = """\
A script may stand in the place of the command:

  python -m tinyflow train.py --rate 0.1        the same as: python -m tinyflow run train.py ...

examples:
  python -m tinyflow demo
  python -m tinyflow explain train.py --stage passes --stage profile
  python -m tinyflow explain train.py --fetch train_step --full
  python -m tinyflow tune train.py --seconds 60
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinyflow",
        description="TinyFlow: TensorFlow-1 graphs, compiled to native code.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in _COMMANDS.items():
        commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit status: 0, 1 for a failure, 2 for wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(given)
    except BrokenPipeError:  # `... | head` is no failure
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter still flushes it
        return 0


def _dispatch(given: list[str]) -> int:
    first = given[0] if given else ""
    if first in _COMMANDS:
        return _run_command(first, given[1:])
    if first and not first.startswith("-"):
        return _run_command("run", given)
    parser = _parser()
    options = parser.parse_args(given)
    if options.version:
        import tinyflow

        print(f"tinyflow {tinyflow.__version__}")
        return 0
    parser.print_help()
    return 0 if not given else 2


def _run_command(name: str, arguments: list[str]) -> int:
    if name == "run":
        return _run(arguments)
    module = importlib.import_module(f"tinyflow.tools.{name}")
    text = _COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"tinyflow {name}", description=f"{text[0].upper()}{text[1:]}."
    )
    module.add_arguments(parser)
    options = parser.parse_args(arguments)
    script = getattr(options, "script", None)
    if script is not None and not os.path.isfile(script):
        return _no_such_script(script)
    return int(module.main(options))


def _run(arguments: list[str]) -> int:
    """Everything after the script's name belongs to the script, options too."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: tinyflow run SCRIPT [ARGUMENTS]\n\n{_COMMANDS['run']}")
        return 0 if arguments else 2
    if not os.path.isfile(arguments[0]):
        return _no_such_script(arguments[0])
    from tinyflow.tools.script import ScriptFailed, run_script

    try:
        run_script(arguments[0], arguments[1:])
    except ScriptFailed as failure:
        return failure.status
    return 0


def _no_such_script(name: str) -> int:
    import difflib

    near = difflib.get_close_matches(name, _COMMANDS, 1)
    hint = f"; did you mean the command {near[0]!r}?" if near else ""
    print(f"tinyflow: no script {name!r}{hint}", file=sys.stderr)
    print(f"  commands: {', '.join(_COMMANDS)}; see tinyflow --help", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
