"""Tests of imports: heavy modules are imported only when needed."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from lora_lab.cli import commands

PANELS = """
from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, SweepPanel
from lora_lab.widgets.rank_panel import RankPanel
for panel in (ComparePanel, LoRAPanel, SweepPanel, RankPanel, MemoryPanel):
    panel()._repr_mimebundle_()
panel = MemoryPanel("minilm")
panel.seq = 128
panel.describe()
RankPanel("weight")._repr_mimebundle_()
print([m for m in ("torch", "transformers", "pandas") if m in sys.modules])
"""
PUBLIC = (
    "import lora_lab",
    "from lora_lab import Recipe; Recipe('minilm', 'rt').hash",
    "import lora_course.cli",
    "from lora_course import checks; dir(checks), checks.Verdict, checks.check_rank_of_file",
    "from lora_course.checks import check_pair_numbers",
)


def last_line(code: str) -> str:
    """Run code in a new process and return the last line that it prints."""
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_importing_the_packages_does_not_import_torch():
    heavy = "[m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules]"
    code = f"for line in {PUBLIC}:\n    exec(line)\n    assert not {heavy}, (line, {heavy})\nprint('none')"
    assert last_line(code) == "none"


def test_panels_that_do_not_train_start_without_torch():
    assert last_line(PANELS) == "[]"


def test_check_imports_only_its_own_lesson_and_no_tables():
    opened = "lambda event, a: read.append(a[0]) if event == 'open' and 'data/paper' in str(a[0]) else None"
    checks = "sorted(name for name in sys.modules if name.startswith('lora_course.checks.'))"
    code = f"""
read = []
sys.addaudithook({opened})
from lora_course import checks
checks.check_pair_numbers
loaded = {checks}
checks.check_flip
import lora_course.claims.cards
print(*loaded, read)"""
    assert last_line(code) == "lora_course.checks.small_file lora_course.checks.verdict []"


def test_local_sweep_does_not_import_the_cluster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "lora_lab.experiments.cluster", raising=False)
    assert CliRunner().invoke(commands, ["sweep", "--share", "2/2"]).exit_code == 0
    assert "lora_lab.experiments.cluster" not in sys.modules
