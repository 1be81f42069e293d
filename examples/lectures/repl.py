# Runs a program statement by statement and shows what each statement adds to the graph:
#
#     python examples/lectures/repl.py examples/lectures/l04_graph_by_step.py
import ast
import sys
from collections.abc import Iterator

import tinyflow as tf


def statements(path: str) -> Iterator[tuple[str, list[tf.Operation]]]:
    """(source, operations it added) for each statement of the file, after it ran."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    names: dict[str, object] = {"__name__": "__main__"}
    seen = 0
    for statement in ast.parse(text).body:
        exec(compile(ast.Module([statement], []), path, "exec"), names)
        operations = tf.get_default_graph().get_operations()
        yield ast.get_source_segment(text, statement), operations[seen:]
        seen = len(operations)


def main() -> None:
    for source, added in statements(sys.argv[1]):
        print(f">>> {source}")
        for operation in added:
            reads = ", ".join(tensor.op.name for tensor in operation.inputs)
            print(f"    {operation.name} = {operation.type}({reads})")


if __name__ == "__main__":
    main()
