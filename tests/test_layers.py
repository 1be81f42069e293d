"""The order of the floors, and the habits that a reader relies on, checked on the source text.

A module imports only from its own floor and those below it (see docs/architecture.md). Imports
inside functions count: they are late, not allowed upwards.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tinyflow"

#: bottom to top; one row is one floor
FLOORS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("ir",),
    ("rewrite",),
    ("te",),
    ("ops",),
    ("autodiff",),
    ("passes",),
    ("schedule",),
    ("codegen",),
    ("runtime",),
    ("compile",),
    ("tune",),
    ("cluster",),
    ("frontends",),
    ("data", "keras", "onnx", "checkpoint", "summary"),
    ("examples",),
    ("tools",),
    ("__main__",),
)
#: floors of programs: they see the package as users do
USERS = ("frontends", "examples", "tools", "__main__")
LEVEL = {name: level for level, row in enumerate(FLOORS) for name in row}
#: floors that import nothing of the package but themselves, and that anybody may import
ALONE = ("datasets",)

#: words that say nothing about what a thing is
BANNED_NAMES = frozenset({"data", "info", "obj", "tmp"})
BANNED_START = ("do_", "handle_")
NUMBERED = re.compile(r"[a-z_]{3,}[a-z]2$")  # fuse2; numbers that mean something are listed below
NUMBERS_WITH_MEANING = re.compile(
    r"(u?int|b?float|log|exp|atan|arctan|conv|pool|l|relu|lgamma|philox\dx|expm|ldexp|sha|base)\d+$"
    r"|.*(log|exp|base|atan)_?2$"
)

#: names that programs spell: parameters, attributes and functions of TensorFlow's own interface
GIVEN_BY_TENSORFLOW = {
    "data": ("ops", "frontends"),  # tf.Assert(condition, data), tf.unsorted_segment_sum(data, ...)
    "seed2": ("ops", "frontends"),  # op.get_attr("seed2")
    "beta2": ("frontends",),  # tf.train.AdamOptimizer(learning_rate, beta1, beta2)
    "info": ("frontends",),  # tf.logging.info
    "softmax_cross_entropy_with_logits_v2": ("frontends",),
}

HARD_LIMIT = 800


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(name: str) -> str | None:
    """``tinyflow.passes.cse`` -> ``passes``; None for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else None


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import of the package, wherever it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module_name(path)
    if path.name != "__init__.py":
        package = package.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            if base in ("tinyflow", "tinyflow.ir", "tinyflow.frontends"):
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def test_every_folder_has_a_floor():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert folders <= set(LEVEL) | set(ALONE), "give new folders a floor in this file"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_from_below(path):
    own = floor_of(module_name(path))
    if own is None:
        return  # tinyflow/__init__.py re-exports the front end
    wrong = []
    for line, name in imports(path):
        other = floor_of(name)
        if not name.startswith("tinyflow") or other == own:
            continue
        if other is None:
            allowed = own in USERS
        elif own in ALONE:
            allowed = False
        elif other in ALONE:
            allowed = True
        elif own not in LEVEL or other not in LEVEL:
            allowed = False
        else:
            allowed = LEVEL[other] < LEVEL[own]
        if not allowed:
            wrong.append(f"{path.relative_to(ROOT)}:{line} ({own}) imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_ir_floors_stand_on_each_other():
    """scalar below graph and loop; those two do not know each other."""
    wrong = []
    for path in (PACKAGE / "ir").rglob("*.py"):
        own = path.relative_to(PACKAGE / "ir").parts[0]
        for line, name in imports(path):
            parts = name.split(".")
            if parts[:2] != ["tinyflow", "ir"] or len(parts) < 3 or parts[2] == own:
                continue
            if own == "scalar" or parts[2] != "scalar":
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_import_leaves_the_heavy_parts_for_later():
    code = "import sys, tinyflow; print(sorted({'llvmlite', 'ml_dtypes'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


# ---- habits ----------------------------------------------------------------------------------


def docstring_of(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_has_a_header_and_a_size(path):
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert docstring_of(path), f"{path.relative_to(ROOT)} does not say what it is for"
    count = text.count("\n")
    if count > HARD_LIMIT:
        assert "One file because" in docstring_of(path), (
            f"{path.relative_to(ROOT)} has {count} lines: split it, or say in its header "
            "'One file because ...'"
        )


def own_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that the module chooses: functions, classes, parameters, variables, attributes set."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


def test_no_banned_names():
    wrong = []
    for path in modules():
        for line, name in own_names(ast.parse(path.read_text(encoding="utf-8"))):
            plain = name.lstrip("_")
            numbered = NUMBERED.match(plain) and not NUMBERS_WITH_MEANING.match(plain)
            if floor_of(module_name(path)) in GIVEN_BY_TENSORFLOW.get(name, ()):
                continue
            if plain in BANNED_NAMES or plain.startswith(BANNED_START) or numbered:
                wrong.append(f"{path.relative_to(ROOT)}:{line} {name}")
    assert not wrong, "\n".join(wrong)


# ---- what is written for readers ---------------------------------------------------------------


def pages() -> list[Path]:
    found = list(ROOT.glob("*.md"))
    for folder in ("docs", "benchmarks", "examples", "tinyflow"):
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    found = set()
    for line in FENCE.sub("", path.read_text(encoding="utf-8")).splitlines():
        if line.startswith("#"):
            title = line.lstrip("#").strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", title).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = match.group(1) or match.group(2)
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        goal = (page.parent / file) if file else page
        if not goal.exists() or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
            broken.append(target)
    assert not broken, f"{page.relative_to(ROOT)}: {broken}"


#: absolute paths of some machine; /proc and /sys are the system's own interfaces
LOCAL_PATH = re.compile(r"(?<![\w.:/<])/(home|work|root|Users|tmp|mnt|opt|var|private)/\w")


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_name_no_local_path(page):
    text = page.read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if LOCAL_PATH.search(line)]
    assert not found, "\n".join(found)
