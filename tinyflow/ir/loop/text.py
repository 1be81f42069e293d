"""Text of kernels, and back: ``parse(show(kernel))`` is an equal kernel.

Main functions: ``show``, ``show_body``, ``parse``. Imports core, ir.scalar and ir.loop.

The text is complete (names, element types, shapes, scopes, extents) and depends on nothing else,
so it serves as the key of the kernel cache. Syntax::

    kernel scale(x: float32[N, 64], y: float32[N, 64]; N) -> y, tasks=N:
      for i in parallel(N):
        with acc: register float32[16]:
          for l in vectorize(16):
            acc[l] = x[i, l]
        if i < 3:
          t0 = exp(x[i, 0])              names a shared sub-expression of the next statement
          y[i, 0] = t0 * t0
        else:
          pass
        call prefetch(x, i)
        barrier
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tinyflow.core.dtype import as_dtype
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import (
    KINDS,
    Alloc,
    Barrier,
    Body,
    Buffer,
    Call,
    Extent,
    For,
    If,
    Kernel,
    Stmt,
    Store,
)
from tinyflow.ir.loop.visit import all_expressions
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import text as scalar_text
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import postorder

#: A statement with more operations than this, some of them shared, is printed with named parts.
TREE_LIMIT = 40
_STEP = "  "

# --- printing -------------------------------------------------------------------------------------


def show(kernel: Kernel) -> str:
    """The whole kernel as text; ends with a newline."""
    parameters = ", ".join(_declaration(b) for b in kernel.buffers)
    if kernel.extents:
        parameters += "; " + ", ".join(scalar_text.show(e) for e in kernel.extents)
    name = scalar_text.show_name(kernel.name)
    outputs = ", ".join(scalar_text.show_name(o) for o in kernel.outputs)
    head = f"kernel {name}({parameters}) -> {outputs}, tasks={_extent(kernel.tasks)}:"
    return "\n".join([head, *_lines(kernel.body, _STEP)]) + "\n"


def show_body(body: Iterable[Stmt]) -> str:
    """The statements as text, for messages."""
    return "\n".join(_lines(tuple(body), ""))


def show_head(stmt: Stmt) -> str:
    """The statement's first line, without what is inside."""
    return _lines((stmt,), "")[-1 if isinstance(stmt, Store) else 0]


def _extent(extent: Extent) -> str:
    return scalar_text.show(extent) if isinstance(extent, Expr) else str(extent)


def _declaration(buffer: Buffer) -> str:
    shape = ", ".join(_extent(d) for d in buffer.shape)
    scope = "" if buffer.scope == "param" else buffer.scope + " "
    if buffer.nontemporal:
        scope += "nontemporal "
    return f"{scalar_text.show_name(buffer.name)}: {scope}{buffer.dtype.name}[{shape}]"


def _lines(body: Body, indent: str) -> list[str]:
    if not body:
        return [indent + "pass"]
    out: list[str] = []
    for stmt in body:
        out.extend(_statement(stmt, indent))
    return out


def _statement(stmt: Stmt, indent: str) -> list[str]:
    inner = indent + _STEP
    if isinstance(stmt, Store):
        return _store(stmt, indent)
    if isinstance(stmt, For):
        head = f"{indent}for {scalar_text.show(stmt.var)} in {stmt.kind}({_extent(stmt.extent)}):"
        return [head, *_lines(stmt.body, inner)]
    if isinstance(stmt, Alloc):
        return [f"{indent}with {_declaration(stmt.buffer)}:", *_lines(stmt.body, inner)]
    if isinstance(stmt, If):
        lets, (condition,) = _show_all((stmt.condition,))
        lines = [indent + let for let in lets]
        lines += [f"{indent}if {condition}:", *_lines(stmt.then, inner)]
        if stmt.orelse:
            lines += [f"{indent}else:", *_lines(stmt.orelse, inner)]
        return lines
    if isinstance(stmt, Call):
        arguments = [
            scalar_text.show_name(a.name) if isinstance(a, Buffer) else scalar_text.show(a)
            for a in stmt.arguments
        ]
        return [f"{indent}call {stmt.function}({', '.join(arguments)})"]
    if isinstance(stmt, Barrier):
        return [indent + "barrier"]
    raise InternalError(f"loop text: unknown statement {type(stmt).__name__}")


def _store(stmt: Store, indent: str) -> list[str]:
    lets, texts = _show_all((*stmt.indices, stmt.value))
    target = f"{scalar_text.show_name(stmt.buffer.name)}[{', '.join(texts[:-1])}]"
    return [*(indent + let for let in lets), f"{indent}{target} = {texts[-1]}"]


def _show_all(roots: tuple[Expr, ...]) -> tuple[list[str], list[str]]:
    """Named parts and the texts of the roots; parts are named only where the text would grow."""
    sizes: dict[Expr, int] = {}
    for node in postorder(*roots):
        sizes[node] = 1 + sum(sizes[a] for a in node.args)
    tree = sum(sizes[root] for root in roots)
    if tree > TREE_LIMIT and tree > len(sizes) + len(sizes) // 2:
        return scalar_text.show_let(roots)
    return [], [scalar_text.show(root) for root in roots]


# --- parsing --------------------------------------------------------------------------------------

_NAME = r"(?:[A-Za-z_][A-Za-z0-9_.]*|`[^`]*`)"
_HEAD = re.compile(rf"kernel ({_NAME})\((.*)\) -> (.*), tasks=(.*):\Z")
_DECLARATION = re.compile(
    rf"({_NAME}): (?:(stack|register) )?(?:(nontemporal) )?(\w+)\[(.*)\]\Z"
)
_FOR = re.compile(rf"for ({_NAME}) in (\w+)\((.*)\):\Z")
_LET = re.compile(rf"({_NAME}) = (.*)\Z")
_STORE = re.compile(rf"({_NAME})\[(.*?)\] = (.*)\Z")
_CALL = re.compile(r"call (\S+?)\((.*)\)\Z")

_Names = dict[str, Expr | Buffer]


def parse(text: str) -> Kernel:
    """The kernel with this text; sources and ops are not part of it. Errors: InternalError."""
    lines = [line for line in text.splitlines() if line.strip()]
    match = _HEAD.match(lines[0]) if lines else None
    if match is None:
        raise InternalError("loop text: expected 'kernel name(buffers; extents) -> outputs, ...:'")
    name, parameters, outputs, tasks = match.groups()
    buffer_text, _, extent_text = parameters.partition("; ")
    names: _Names = {_plain(e): s.var(_plain(e)) for e in _split(extent_text)}
    extents = tuple(e for e in names.values() if isinstance(e, Expr))
    buffers = [_parse_declaration(part, names) for part in _split(buffer_text)]
    names.update((b.name, b) for b in buffers)
    reader = _Reader(lines[1:])
    body = reader.body(_STEP, names)
    if reader.position < len(reader.lines):
        raise InternalError(f"loop text: wrong indentation at {reader.lines[reader.position]!r}")
    return Kernel(
        name=_plain(name),
        buffers=tuple(buffers),
        extents=extents,
        body=body,
        outputs=tuple(_plain(o) for o in _split(outputs)),
        tasks=_parse_extent(tasks, names),
    )


def _plain(name: str) -> str:
    return name.strip().strip("`")


def _split(text: str) -> list[str]:
    """The parts between commas that are outside brackets and backquotes."""
    parts: list[str] = []
    depth, start, quoted = 0, 0, False
    for position, char in enumerate(text):
        if char == "`":
            quoted = not quoted
        elif quoted:
            continue
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _parse_extent(text: str, names: Mapping[str, Expr | Buffer]) -> Extent:
    expr = scalar_text.parse(text, names)
    return expr.attr if expr.op == "const" else expr


def _parse_declaration(text: str, names: _Names) -> Buffer:
    match = _DECLARATION.match(text)
    if match is None:
        raise InternalError(f"loop text: expected 'name: scope dtype[shape]', got {text!r}")
    name, scope, nontemporal, dtype, shape = match.groups()
    extents = tuple(_parse_extent(part, names) for part in _split(shape))
    return Buffer(
        _plain(name), as_dtype(dtype), extents, scope or "param", nontemporal is not None
    )


class _Reader:
    """Reads statements by indentation."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.position = 0

    def indented(self, indent: str) -> Iterator[str]:
        """The following lines with exactly this indentation, stripped; others end the body."""
        while self.position < len(self.lines):
            line = self.lines[self.position]
            if not line.startswith(indent) or line[len(indent)] == " ":
                return
            self.position += 1
            yield line[len(indent) :]

    def body(self, indent: str, names: _Names) -> Body:
        out: list[Stmt] = []
        lets: _Names = {}
        for line in self.indented(indent):
            if line == "else:":
                self.position -= 1
                break
            let = _LET.match(line)
            if let is not None:
                lets[_plain(let[1])] = scalar_text.parse(let[2], {**names, **lets})
            elif line != "pass":
                out.append(self.statement(line, indent, names, {**names, **lets}))
                lets = {}
        return tuple(out)

    def statement(self, line: str, indent: str, names: _Names, known: _Names) -> Stmt:
        """``names``: what is in scope; ``known``: the same with named parts of this statement."""
        inner = indent + _STEP
        if line == "barrier":
            return Barrier()
        if line.startswith("if "):
            then = self.body(inner, names)
            orelse: Body = ()
            if self.lines[self.position : self.position + 1] == [indent + "else:"]:
                self.position += 1
                orelse = self.body(inner, names)
            return If(scalar_text.parse(line[3:-1], known), then, orelse)
        if line.startswith("with "):
            buffer = _parse_declaration(line[5:-1], names)
            return Alloc(buffer, self.body(inner, {**names, buffer.name: buffer}))
        match = _FOR.match(line)
        if match is not None and match[2] in KINDS:
            var = s.var(_plain(match[1]))
            extent = _parse_extent(match[3], names)
            return For(var, extent, match[2], self.body(inner, {**names, _plain(match[1]): var}))
        match = _CALL.match(line)
        if match is not None:
            return Call(match[1], tuple(_argument(a, names) for a in _split(match[2])))
        return self.store(line, known)

    def store(self, line: str, known: _Names) -> Store:
        match = _STORE.match(line)
        buffer = known.get(_plain(match[1])) if match else None
        if match is None or not isinstance(buffer, Buffer):
            raise InternalError(f"loop text: cannot read the statement {line!r}")
        # The first "] = " outside brackets ends the indices: none can occur inside an index.
        indices = tuple(scalar_text.parse(i, known) for i in _split(match[2]))
        return Store(buffer, indices, scalar_text.parse(match[3], known))


def _argument(text: str, names: _Names) -> Expr | Buffer:
    found = names.get(_plain(text))
    return found if isinstance(found, Buffer) else scalar_text.parse(text, names)


def names_in(body: Iterable[Stmt]) -> set[str]:
    """Every variable name the body mentions, to choose a fresh one."""
    return {str(e.attr) for e in all_expressions(body) if e.op == "var"}
