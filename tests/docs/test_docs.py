"""The pages for readers are true: their code runs and prints what they show, lists are complete."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinyflow.core import error
from tinyflow.core.options import Options

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RUNNER = Path(__file__).with_name("runner.py")
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
#: what a page may rely on, whatever the shell has set
KEPT = ("TINYFLOW_DATA", "TINYFLOW_CACHE", "TINYFLOW_NUM_THREADS")


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_code_of_the_page_runs(page):
    """In a process of its own: pages define ops, and ops register themselves."""
    environment = {
        k: v for k, v in os.environ.items() if k in KEPT or not k.startswith("TINYFLOW_")
    }
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(page)], capture_output=True, text=True, cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), "TINYFLOW_TUNING_LOG": ""},
    )  # fmt: skip
    assert done.returncode == 0, (
        f"{done.stderr}\nIf the new output is right: python tests/docs/runner.py --update "
        f"{page.relative_to(ROOT)}"
    )


# ---- complete lists ------------------------------------------------------------------------------


def test_every_option_is_listed():
    rows = set(re.findall(r"^\| `(\w+)` \|", text_of("options.md"), re.MULTILINE))
    fields = {f.name for f in dataclasses.fields(Options)}
    assert fields <= rows, f"docs/options.md lacks {sorted(fields - rows)}"


def test_every_environment_variable_is_listed_and_real():
    name = re.compile(r"\bTINYFLOW_[A-Z0-9_]*[A-Z0-9]\b")
    read = set()
    for path in (ROOT / "tinyflow").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "environ" in line or re.match(r'[A-Z_]+ = "TINYFLOW_', line):
                read |= set(name.findall(line))
    table = set(re.findall(r"^\| `(TINYFLOW_\w+)` \|", text_of("options.md"), re.MULTILINE))
    assert read <= table, f"docs/options.md lacks {sorted(read - table)}"
    assert table <= read, f"docs/options.md lists what nothing reads: {sorted(table - read)}"


def classes_of_errors() -> list[type[Exception]]:
    return [
        c
        for c in vars(error).values()
        if isinstance(c, type) and issubclass(c, error.TinyFlowError)
    ]


@pytest.mark.parametrize("kind", classes_of_errors(), ids=lambda c: c.__name__)
def test_every_error_is_described(kind):
    assert f"`{kind.__name__}`" in text_of("errors.md")


def test_error_codes_and_built_ins_are_right():
    """Rows of the table of codes: | code | tf.errors name | class | also |."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| `(\w+)` \|(.*?)\|", text_of("errors.md"), re.M)
    assert {int(code) for code, *_ in rows} == set(range(1, 17))
    for code, _public, name, also in rows:
        kind = getattr(error, name)
        assert kind.error_code == int(code)
        ours = set(re.findall(r"`(\w+)`", also))
        real = {b.__name__ for b in kind.__bases__ if b.__module__ == "builtins"}
        assert ours == real, name


def test_glossary_has_the_words_of_the_code():
    defined = set(re.findall(r"^\*\*([\w -]+)\*\*", text_of("glossary.md"), re.MULTILINE))
    wanted = {
        "node", "value", "function", "statement", "loop", "buffer", "expression", "step", "group",
        "kernel", "launch", "segment", "arena", "place", "domain", "sweep", "stripe", "fold",
        "builder", "contract", "rule", "pass", "program", "target", "view", "in place", "task",
    }  # fmt: skip
    assert wanted <= defined, sorted(wanted - defined)


# ---- pages about files -----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_a_page_names_exist(page):
    """`tinyflow/passes/pipeline.py` and the like, in backticks."""
    named = re.findall(
        r"`((?:tinyflow|tests|docs|examples|benchmarks)/[\w/.*]+)`",
        page.read_text(encoding="utf-8"),
    )
    missing = [n for n in named if not list(ROOT.glob(n.rstrip("/")))]
    assert not missing, f"{page.name}: {missing}"
