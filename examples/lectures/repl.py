# Runs a program statement by statement and shows what each statement adds to the graph:
#
#     python examples/lectures/repl.py examples/lectures/l04_graph_by_step.py
import ast
import sys
from collections.abc import Callable, Iterator

import tinyflow as tf


def statements(path: str) -> Iterator[tuple[str, Callable[[], list[tf.Operation]]]]:
    """(source, run) for each statement of the file; run() returns the operations it added."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    names: dict[str, object] = {"__name__": "__main__"}
    for statement in ast.parse(text).body:

        def run(statement: ast.stmt = statement) -> list[tf.Operation]:
            seen = len(tf.get_default_graph().get_operations())
            exec(compile(ast.Module([statement], []), path, "exec"), names)
            return tf.get_default_graph().get_operations()[seen:]

        yield ast.get_source_segment(text, statement), run


def main() -> None:
    for source, run in statements(sys.argv[1]):
        print(f">>> {source}")
        for operation in run():
            reads = ", ".join(tensor.op.name for tensor in operation.inputs)
            print(f"    {operation.name} = {operation.type}({reads})")


if __name__ == "__main__":
    main()
