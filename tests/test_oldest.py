"""Which versions `make test-oldest` installs, and which interpreters it takes."""

from tests.oldest import find_interpreter, requirements


def test_oldest_are_the_lower_bounds_of_that_python():
    older, newer = (requirements(python, "oldest") for python in ("3.10", "3.11"))
    assert "onnxruntime==1.23.2" in older and "onnxruntime==1.31" in newer
    names = {line.partition("==")[0] for line in newer if "==" in line}
    assert names >= {"numpy", "pillow", "tokenizers", "click", "onnxruntime"}
    assert {line.split(">=")[0] for line in newer if "==" not in line} == {"pytest", "hypothesis"}


def test_newest_are_what_pip_chooses():
    assert [line for line in requirements("3.13", "newest") if "==" in line] == []
    assert "onnxruntime>=1.31" in requirements("3.13", "newest")


def test_an_interpreter_that_does_not_start_is_none(tmp_path, monkeypatch):
    """As pyenv's shims of versions that are not chosen."""
    shim = tmp_path / "python3.10"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert find_interpreter("3.10") is None
    real = tmp_path / "pyenv" / "versions" / "3.10.1" / "bin" / "python3.10"
    real.parent.mkdir(parents=True)
    real.write_text("#!/bin/sh\necho 3.10\n")
    real.chmod(0o755)
    assert find_interpreter("3.10") == str(real)
