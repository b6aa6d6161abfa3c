"""What importing the packages costs."""

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


def printed(code: str) -> str:
    """What a process of its own prints in the end."""
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_torch_is_not_imported_before_it_is_needed():
    heavy = "[m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules]"
    code = f"for one in {PUBLIC}:\n    exec(one)\n    assert not {heavy}, (one, {heavy})\nprint('none')"
    assert printed(code) == "none"


def test_panels_that_only_count_and_draw_start_without_torch():
    assert printed(PANELS) == "[]"


def test_a_check_imports_its_own_lesson_alone():
    seen = "sorted(name for name in sys.modules if name.startswith('lora_course.checks.'))"
    code = f"from lora_course import checks; checks.check_pair_numbers; print(*{seen})"
    assert printed(code).split() == ["lora_course.checks.small_file", "lora_course.checks.verdict"]


def test_the_papers_tables_are_not_read_before_they_are_needed():
    hook = "lambda event, a: read.append(a[0]) if event == 'open' and 'data/paper' in str(a[0]) else None"
    imports = "from lora_course.checks import check_flip; import lora_course.claims.cards"
    assert printed(f"read = []; sys.addaudithook({hook}); {imports}; print(read)") == "[]"


def test_a_sweep_on_this_machine_imports_nothing_of_a_clusters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "lora_lab.experiments.cluster", raising=False)
    assert CliRunner().invoke(commands, ["sweep", "--share", "2/2"]).exit_code == 0
    assert "lora_lab.experiments.cluster" not in sys.modules
