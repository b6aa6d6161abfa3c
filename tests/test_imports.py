"""What importing the packages costs."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "statement",
    [
        "import lora_lab",
        "from lora_lab import Recipe; Recipe('minilm', 'rt').hash",
        "import lora_course.cli",
        "from lora_course import checks; dir(checks), checks.Verdict, checks.check_rank_of_file",
        "from lora_course.checks import check_pair_numbers",
    ],
)
def test_torch_is_not_imported_before_it_is_needed(statement):
    code = (
        f"import sys; {statement}; print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_check_imports_its_own_lesson_alone():
    seen = "sorted(name for name in sys.modules if name.startswith('lora_course.checks.'))"
    code = f"import sys; from lora_course import checks; checks.check_pair_numbers; print(*{seen})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lora_course.checks.small_file", "lora_course.checks.verdict"]


@pytest.mark.parametrize("statement", ["from lora_course.checks import check_flip", "import lora_course.claims.cards"])
def test_the_papers_tables_are_not_read_before_they_are_needed(statement):
    hook = "lambda event, a: read.append(a[0]) if event == 'open' and 'data/paper' in str(a[0]) else None"
    code = f"import sys; read = []; sys.addaudithook({hook}); {statement}; print(read)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_sweep_on_this_machine_imports_nothing_of_a_clusters():
    command = ["sweep", "--share", "2/2"]  # of one run: nothing to do
    code = f"import sys; from lora_lab.cli import commands; commands({command}, standalone_mode=False)"
    code += "; print('lora_lab.experiments.cluster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
