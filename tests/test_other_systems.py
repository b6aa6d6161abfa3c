import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest
from safetensors.torch import save_file

from lora_course.experiments import broken
from lora_lab import LoRA, params
from lora_lab.accounting import models
from tests.conftest import ROOT, mapped

SOURCES = ("lora_*/**/*.py", "site/*.py", "docs/*.py", "benchmarks/*.py", "notebooks/*.py", "notebooks/src/*.py")
NOT_FILES = ("Image", "archive", "opener", "webbrowser")  # their `open` does not open text files
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def guesses_the_encoding(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    owner = getattr(getattr(call.func, "value", None), "id", "")
    texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    explicit = "encoding" in {keyword.arg for keyword in call.keywords} or "utf-8" in texts
    binary = name == "open" and (owner in NOT_FILES or any("b" in text for text in texts if len(text) < 4))
    return name in ("open", "read_text", "write_text") and not explicit and not binary


def test_every_text_file_is_opened_with_an_encoding():
    guesses = []
    for path in (path for pattern in SOURCES for path in ROOT.glob(pattern)):
        calls = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
        guesses += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in calls if guesses_the_encoding(call)]
    assert guesses == []


def test_every_system_can_check_out_the_repository():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8")
    if listed.returncode:
        pytest.skip("not a clone")
    names = listed.stdout.split("\0")[:-1]
    assert [name for name in names if re.search(r'[<>:"|?*\\]|[. ](/|$)', name) or len(name) > 100] == []
    assert [name for name in names if RESERVED & {part.split(".")[0].lower() for part in name.split("/")}] == []
    assert len({name.lower() for name in names}) == len(names)
    assert sum((ROOT / name).stat().st_size for name in names) <= 12e6  # forty clones over bad wifi
    scripts = [ROOT / name for name in names if re.search(r"\.(sh|ps1|cmd)$|^(postBuild|Makefile|\.ci/run)$", name)]
    assert [path for path in scripts if b"\r" in path.read_bytes() or not path.read_bytes().isascii()] == []


def test_conda_file_and_install_guide_match_pyproject():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (torch,), (version,) = re.findall(r'"torch(>=[\d.]+)"', project), re.findall(r'^version = "(.*)"', project, re.M)
    assert f"pytorch-cpu{torch} " in (ROOT / "environment.yml").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert {*re.findall(r"lora_lab-([\d.]+)-py3", guide)} == {version}


def test_command_works_without_utf_8(tmp_path: Path):
    system = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "cp1252"}
    env, command = {**os.environ, **system, "PYTHONPATH": str(ROOT)}, [sys.executable, "-m", "lora_course", "claims"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.decode("cp1252")) > 200


def test_config_may_have_a_byte_order_mark_and_a_windows_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "config.json"
    file.write_bytes(json.dumps(models.config_of("llama-3-8b"), indent=1).replace("\n", "\r\n").encode("utf-8-sig"))
    assert params(str(file), LoRA()).trainable == params("llama-3-8b", LoRA()).trainable
    monkeypatch.setattr(models, "Path", PureWindowsPath)
    names = [models._name(name) for name in (r"C:\models\llama", r"C:\models\llama\config.json", "some/llama")]
    assert names == ["llama"] * 3


def test_exercise_file_is_not_mapped_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The exercise changes an adapter that it has loaded; Windows cannot replace a file that is still mapped."""
    mappings = []
    monkeypatch.setattr(broken, "save_file", lambda t, file, m: mappings.append(mapped(file)) or save_file(t, file, m))
    broken.eleventh(0, tmp_path / "patient")
    assert mappings == [False]
