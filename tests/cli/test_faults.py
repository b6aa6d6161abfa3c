import json
import os
import subprocess
import sys
from pathlib import Path

from lora_lab.training.assets import home
from tests.conftest import BWRAP, needs_bwrap

ROOT = Path(__file__).parents[2]
RUN_COMMANDS = """
import sys, lora_course.cli
for words in sys.argv[1:]:
    sys.argv = ["lora-lab", *words.split()]
    print(f"\\n$ {words}", file=sys.stderr)
    try:
        lora_course.cli.main()
    except SystemExit as error:
        print(f"exit {error.code}", file=sys.stderr)
"""


@needs_bwrap
def test_commands_answer_or_explain_where_nothing_can_be_written(tiny_encoder, opinions, tmp_path):
    work, disk, scratch = (tmp_path / name for name in ("work", "disk", "scratch"))
    for folder in (work, disk, scratch):
        folder.mkdir()
    sandbox = [*BWRAP, "--bind", scratch, scratch, "--size", "3000000", "--tmpfs", disk, "--chdir", work]
    paths = {"HOME": work, "XDG_CACHE_HOME": work, "LORA_LAB_HOME": home(), "TMPDIR": scratch, "PYTHONPATH": ROOT}
    env = os.environ | {name: str(path) for name, path in paths.items()}
    run = f"--model {tiny_encoder} --task {opinions} --steps 2 --rank 1"
    answered = ["doctor --json", "params minilm --json", "memory minilm --rank 3 --seq 77 --json"]
    refused = [f"train {run}", f"sweep {run}", f"train {run} --out {disk}"]
    command = [*sandbox, sys.executable, "-c", RUN_COMMANDS, *answered, *refused]  # one process, which imports once
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    messages = [block.splitlines()[1:] for block in done.stderr.split("\n$ ")[1:]]
    assert messages[:3] == [["exit 0"]] * 3
    assert [len(json.loads(line)) > 5 for line in done.stdout.splitlines()] == [True] * 3
    for (sentence, *rest), reason in zip(messages[3:], ("Read-only", "Read-only", "No space left"), strict=True):
        assert sentence.startswith("lora-lab: cannot write into ")
        assert reason in sentence
        assert rest == ["exit 2"]
    assert not any(work.iterdir())
