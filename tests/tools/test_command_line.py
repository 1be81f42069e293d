import subprocess
import sys

import pytest

import tinyflow
from tinyflow.__main__ import main


def test_without_arguments_the_help_is_shown(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("demo", "explain", "doctor", "run"))


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tinyflow {tinyflow.__version__}\n"


def test_a_misspelt_command_gets_a_hint(capsys):
    assert main(["docter"]) == 2
    text = capsys.readouterr().err
    assert "no script 'docter'; did you mean the command 'doctor'?" in text


@pytest.mark.parametrize("command", [["run"], ["explain"], []])
def test_a_missing_script(capsys, command):
    assert main([*command, "nowhere.py"]) == 2
    assert "no script 'nowhere.py'" in capsys.readouterr().err


def test_run_without_a_script(capsys):
    assert main(["run"]) == 2
    assert main(["run", "--help"]) == 0
    assert "usage: tinyflow run SCRIPT" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["demo", "explain", "doctor"])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0
    assert f"usage: tinyflow {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["run"]])
def test_a_script_takes_its_own_options(tmp_path, capsys, command):
    path = tmp_path / "options.py"
    path.write_text("import sys\nprint(sys.argv[1:])\n")
    assert main([*command, str(path), "--help", "--stage", "3"]) == 0
    assert capsys.readouterr().out == "['--help', '--stage', '3']\n"


def test_a_scripts_exit_status_is_ours(tmp_path, capsys):
    path = tmp_path / "leaves.py"
    path.write_text("import sys\nsys.exit(7)\n")
    assert main([str(path)]) == 7


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom tinyflow.__main__ import main\nmain([])\n"
        "heavy = {'llvmlite', 'numpy.testing', 'tinyflow.compile', 'tinyflow.tools.explain'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
