from tinyflow.tools import layout


def test_columns_are_aligned_and_the_flexible_one_gives_way():
    lines = layout.table(
        [("add", "x" * 120, "7"), ("multiply", "short", "12")], "llr", ("op", "text", "n"),
        flexible=(1,),
    )  # fmt: skip
    assert [len(line) for line in lines] == [layout.WIDTH] * 4
    assert lines[1] == "  --------  " + "-" * 84 + "  --"
    assert lines[2].startswith("  add       xxx") and lines[2].endswith("...   7")
    assert lines[3].endswith("  12")


def test_wrapped_cells_continue_below():
    lines = layout.table([("a", "word " * 30, "z")], "lll", flexible=(1,), wrap=True)
    assert len(lines) == 2 and max(map(len, lines)) <= layout.WIDTH
    assert lines[1].startswith("     word")


def test_an_empty_table_is_no_lines():
    assert layout.table([], "ll") == []


def test_headings_fill_the_width():
    blank, line = layout.heading("passes", "3 ms")
    assert blank == "" and len(line) == layout.WIDTH
    assert line.startswith("== passes ==") and line.endswith("== 3 ms ==")


def test_cut_says_how_much_is_missing():
    lines = [str(n) for n in range(2000)]
    assert layout.cut(lines, 10, "ask")[10:] == ["  ... 1,990 more lines: ask"]
    assert layout.cut(lines[:11], 10, "ask") == lines[:11]  # one line is not worth a remark


def test_quantities():
    assert [layout.size(n) for n in (0, 1023, 1536, 64 << 20, 5 << 30)] == [
        "0 B", "1023 B", "1.5 KiB", "64 MiB", "5 GiB",
    ]  # fmt: skip
    assert [layout.duration(s) for s in (2.5e-6, 0.0123, 3.0)] == ["2.5 us", "12.3 ms", "3.00 s"]
    assert layout.plural(1, "kernel") == "1 kernel" and layout.plural(0, "kernel") == "0 kernels"
    assert layout.plural(2, "class", "classes") == "2 classes"
    assert layout.shortened("a  b\nc", 80) == "a  b c" and layout.shortened("abcdef", 5) == "ab..."
