import sys

import pytest

from tinyflow.tools.script import ScriptFailed, alias_tensorflow, run_script


def write(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text(text)
    return str(path)


def test_tensorflow_means_tinyflow(tmp_path):
    found = run_script(write(tmp_path, "import tensorflow as tf\nx = tf.constant(3.0)\n"))
    import tinyflow

    assert found["tf"] is tinyflow
    assert tinyflow.__spec__.name == "tinyflow"


def test_submodules_and_old_spellings(tmp_path):
    text = "import tensorflow.compat.v1 as tf\nfrom tensorflow import errors\na = tf.placeholder"
    found = run_script(write(tmp_path, text))
    import tinyflow

    assert found["a"] is tinyflow.placeholder
    assert found["errors"] is tinyflow.errors


def test_the_script_is_main_with_its_arguments_and_neighbours(tmp_path):
    (tmp_path / "neighbour_of_program.py").write_text("answer = 42\n")
    text = (
        "import sys\nfrom neighbour_of_program import answer\n"
        "argv, name, file = list(sys.argv), __name__, __file__\n"
        "def f(): return argv\n"
        "same = sys.modules['__main__'].__dict__ is globals()\n"
    )
    path = write(tmp_path, text)
    before = sys.argv, list(sys.path), sys.modules["__main__"], list(sys.meta_path)
    found = run_script(path, ["--rate", "0.1"])
    assert found["argv"] == [path, "--rate", "0.1"] and found["answer"] == 42
    assert (found["name"], found["file"], found["same"]) == ("__main__", path, True)
    assert found["f"]() is found["argv"]
    assert before == (sys.argv, list(sys.path), sys.modules["__main__"], list(sys.meta_path))


def test_an_error_shows_the_scripts_frames_and_not_ours(tmp_path, capsys):
    path = write(tmp_path, "def f():\n    return 1 / 0\n\nf()\n")
    with pytest.raises(ScriptFailed) as caught:
        run_script(path)
    text = capsys.readouterr().err
    assert caught.value.status == 1
    assert text.startswith("Traceback") and text.endswith("ZeroDivisionError: division by zero\n")
    assert f'File "{path}", line 4, in <module>' in text and "return 1 / 0" in text
    assert "tools" not in text


def test_a_missing_module_says_what_tensorflow_means_here(tmp_path, capsys):
    with pytest.raises(ScriptFailed):
        run_script(write(tmp_path, "import tensorflow.no_such_part\n"))
    text = capsys.readouterr().err
    assert "No module named 'tensorflow.no_such_part': here 'tensorflow' means TinyFlow" in text
    assert "create_module" not in text


@pytest.mark.parametrize(("call", "status"), [("3", 3), ("'bad input'", 1), ("True", 1)])
def test_exit_status_is_the_scripts(tmp_path, capsys, call, status):
    with pytest.raises(ScriptFailed) as caught:
        run_script(write(tmp_path, f"import sys\nsys.exit({call})\n"))
    assert caught.value.status == status
    assert capsys.readouterr().err == ("bad input\n" if "bad" in call else "")


@pytest.mark.parametrize("call", ["", "0", "None"])
def test_a_good_exit_is_no_failure(tmp_path, call):
    assert run_script(write(tmp_path, f"import sys\ndone = 1\nsys.exit({call})\n"))["done"] == 1


def test_a_syntax_error_is_the_scripts(tmp_path, capsys):
    with pytest.raises(ScriptFailed):
        run_script(write(tmp_path, "def f(:\n"))
    assert "SyntaxError" in capsys.readouterr().err


def test_the_alias_ends_with_its_block():
    before = list(sys.meta_path)
    with alias_tensorflow():
        assert sys.meta_path != before
    assert sys.meta_path == before
