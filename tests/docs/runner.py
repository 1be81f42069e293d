"""Runs the code of a page and compares what it prints with what the page shows.

    python tests/docs/runner.py docs/glossary.md ...            check
    python tests/docs/runner.py --update docs/glossary.md ...   put the real output into the page

Convention. ```python blocks run in order in one namespace; lines count as lines of the page, so
places in messages read `howto_op.md:31`. The next block, if it is ```text, is what the block
printed. In it a line `...` stands for any lines. A block that prints must show it. `python norun`
blocks are not run; other languages (sh, asm, ...) are illustrations.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)

#: what may differ between two runs or versions of a tool: times, addresses, lines of the page,
#: registers and LLVM's numbered values, blanks that align columns
_VOLATILE = (
    (re.compile(r"\d[\d.,]*( ?)(ns|us|ms|s|GB/s|GFLOP/s)(?![\w/])"), r"#\1\2"),
    (re.compile(r"0x[0-9a-f]+"), "0x#"),
    (re.compile(r"(\.md):\d+"), r"\1:#"),
    (re.compile(r"%([xyz])mm\d+|%v\d+"), "%#"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass
class Block:
    """A fenced block: language, text, where it stands in the page."""

    language: str
    text: str
    line: int
    start: int
    end: int


def blocks_of(page: str) -> list[Block]:
    found = []
    for match in FENCE.finditer(page):
        line = page.count("\n", 0, match.start(2)) + 1
        found.append(Block(match.group(1).strip(), match.group(2), line, *match.span(2)))
    return found


def normalised(text: str) -> list[str]:
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    return [line.strip() for line in text.strip().splitlines()]


def fits(shown: list[str], printed: list[str]) -> bool:
    """Whether the printed lines are the shown ones, `...` standing for any number of lines."""
    if "..." not in shown:
        return shown == printed
    first = shown.index("...")
    if shown[:first] != printed[:first]:
        return False
    rest = shown[first + 1 :]
    return any(fits(rest, printed[start:]) for start in range(first, len(printed) + 1))


def run_block(block: Block, name: str, names: dict[str, object]) -> str:
    """What the block prints."""
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.text, name, "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def run_page(path: Path, update: bool = False) -> list[str]:
    """The problems of one page; with ``update`` shown output is replaced where it differs."""
    page = path.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    names: dict[str, object] = {"__name__": "__main__"}
    problems: list[str] = []
    changes: list[tuple[int, int, str]] = []
    for position, block in enumerate(blocks):
        if block.language != "python":
            continue
        try:
            printed = run_block(block, path.name, names)
        except Exception:
            problems.append(f"{path.name}:{block.line} fails\n{traceback.format_exc()}")
            break
        after = blocks[position + 1] if position + 1 < len(blocks) else None
        if after is not None and after.language == "text":
            shown, got = normalised(after.text), normalised(printed)
            if not fits(shown, got):
                changes.append((after.start, after.end, printed.rstrip("\n") + "\n"))
                problems.append(_difference(path.name, after.line, shown, got))
        elif printed.strip():
            problems.append(
                f"{path.name}:{block.line} prints, but no ```text block follows:\n{printed}"
            )
    if update and changes:
        for start, end, text in reversed(changes):
            page = page[:start] + text + page[end:]
        path.write_text(page, encoding="utf-8")
    return problems


def _difference(name: str, line: int, shown: list[str], got: list[str]) -> str:
    lines = difflib.unified_diff(shown, got, "the page", "this run", lineterm="", n=2)
    return f"{name}:{line} shows something else:\n" + "\n".join(lines)


def main(arguments: list[str]) -> int:
    pages = [argument for argument in arguments if argument != "--update"]
    options = ["--update"] if "--update" in arguments else []
    if len(pages) != 1:  # a process per page: graphs and registered ops would add up
        commands = ([sys.executable, __file__, *options, page] for page in pages)
        return max([subprocess.run(command).returncode for command in commands], default=0)
    problems = run_page(Path(pages[0]), bool(options))
    if problems:
        print("\n\n".join(problems), file=sys.stderr)
    return 1 if problems and not options else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
