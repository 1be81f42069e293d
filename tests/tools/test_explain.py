import re

import pytest

from tinyflow.__main__ import main
from tinyflow.tools.layout import WIDTH
from tinyflow.tools.stages import ALL_STAGES


def explained(capsys, *arguments):
    status = main(["explain", *arguments])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def test_every_stage_of_the_step_with_the_most_work(script, capsys):
    text = explained(capsys, script)
    first, *rest = text.splitlines()
    assert re.fullmatch(r"loss \d\.\d+", first)  # what the script printed stays
    assert max(map(len, rest)) <= WIDTH
    titles = re.findall(r"^== (.*?) =+", text, re.M)
    assert titles[:6] == [
        "steps of the script", "graph as written", "gradient", "passes", "fusion groups",
        "memory plan",
    ]  # fmt: skip
    assert titles[-1] == "profile"
    assert "-> train_step (Assign:0): 20 runs" in text
    # The user's lines, at the nodes and at the kernels.
    assert text.count("train.py:7   y = tf.nn.softmax(tf.matmul(x, W))") >= 3
    assert "requested at train.py:10   W_grad = tf.gradients(loss, [W])[0]" in text
    for part in ("= MatMul(", "= Softmax(", "-- after specialize: ", "applied  ", "not fused",
                 "for ", "fma(", "LLVM IR", "assembly (", "in place: "):  # fmt: skip
        assert part in text, part
    assert "20 runs made 20 native calls (one per step) of" in text


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_one_stage_at_a_time(script, capsys, stage):
    text = explained(capsys, script, "--stage", stage)
    titles = re.findall(r"^== (.*?) =+", text, re.M)[1:]
    if stage in ("loops", "llvm", "assembly"):
        assert titles and all(title.startswith("kernel ") for title in titles)
        marks = {"loops": "loop nest", "llvm": "LLVM IR", "assembly": "assembly ("}
        assert [m for m, mark in marks.items() if mark in text] == [stage]
    else:
        assert len(titles) == 1


def test_full_prints_everything(script, capsys):
    cut = explained(capsys, script, "--stage", "llvm")
    full = explained(capsys, script, "--stage", "llvm", "--full")
    assert "--full shows it" in cut and "--full" not in full
    kernels = len(re.findall(r"^== kernel", full, re.M))
    assert full.count("define void") >= kernels
    assert len(full) > 2 * len(cut)


@pytest.mark.parametrize("name", ["loss", "Mean:0", "Mean"])
def test_a_fetch_is_found_by_variable_and_by_name(script, capsys, name):
    text = explained(capsys, script, "--stage", "gradient", "--fetch", name)
    assert "-> loss (Mean:0): 1 run" in text
    assert "The step computes no gradient." in text


def test_an_unknown_fetch_lists_what_there_is(script, capsys):
    assert main(["explain", script, "--fetch", "accuracy"]) == 2
    text = capsys.readouterr().err
    assert "the script never ran 'accuracy'" in text
    assert "choices: init, train_step (Assign:0), loss (Mean:0)" in text


def test_a_script_without_a_step(tmp_path, capsys):
    path = tmp_path / "empty.py"
    path.write_text("print('nothing to do')\n")
    assert main(["explain", str(path)]) == 2
    assert "the script ran no step" in capsys.readouterr().err


def test_a_failing_script_fails(tmp_path, capsys):
    path = tmp_path / "bad.py"
    path.write_text("import tinyflow as tf\ntf.matmul(tf.zeros([2, 3]), tf.zeros([4, 5]))\n")
    assert main(["explain", str(path)]) == 1
    captured = capsys.readouterr()
    assert "inner dimensions differ" in captured.err and "bad.py:2" in captured.err
    assert captured.out == ""


def test_notes_come_first(tmp_path, capsys):
    path = tmp_path / "vector_loss.py"
    path.write_text(
        "import tensorflow as tf\n"
        "w = tf.Variable([1.0, 2.0])\n"
        "train = tf.train.GradientDescentOptimizer(0.1).minimize(w * w)\n"
        "sess = tf.Session()\n"
        "sess.run(tf.global_variables_initializer())\n"
        "sess.run(train)\n"
    )
    text = explained(capsys, str(path), "--stage", "profile", "--fetch", "train")
    assert text.index("== notes on the program") < text.index("== steps of the script")
    assert re.search(r"vector_loss\.py:3: .*reduce_mean", text, re.DOTALL)
    assert "train (GradientDescent)" in text


def test_loops_that_python_drives_are_named_with_the_reason(tmp_path, capsys):
    path = tmp_path / "growing.py"
    path.write_text(
        "import tensorflow as tf\n"
        "n = tf.placeholder(tf.int32, [])\n"
        "row = tf.while_loop(lambda r: tf.shape(r)[0] < n, lambda r: tf.concat([r, r[:1]], 0),\n"
        "                    [tf.range(2)], shape_invariants=[tf.TensorShape([None])])\n"
        "print(tf.Session().run([row, tf.range(n)], {n: 4}))\n"
    )
    text = explained(capsys, str(path), "--stage", "profile")
    part = text[text.index("== Python between native segments") : text.index("== steps of")]
    assert re.search(r"growing\.py:3: the loop is driven by Python: .*changes its shape", part)
    assert "growing.py:5: Python tells a size" in part


def test_a_step_that_ran_once_went_op_by_op(tmp_path, capsys):
    path = tmp_path / "once.py"
    path.write_text(
        "import tinyflow as tf\n"
        "x = tf.random_uniform([50])\n"
        "print(tf.Session().run(tf.exp(x) * 2.0 + x).shape)\n"
    )
    text = explained(capsys, str(path), "--stage", "groups")
    assert "op by op: every node is its own group" in text


def test_arguments_reach_the_script(tmp_path, capsys):
    path = tmp_path / "sized.py"
    path.write_text(
        "import sys\nimport tinyflow as tf\n"
        "sess = tf.Session()\n"
        "y = tf.exp(tf.random_uniform([int(sys.argv[1])]))\n"
        "for _ in range(3): sess.run(y)\n"
    )
    text = explained(capsys, str(path), "77", "--stage", "memory")
    assert "float32[77]" in text and "-> y (Exp:0): 3 runs" in text
