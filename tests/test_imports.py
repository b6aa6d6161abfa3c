import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

import lora_lab
from tests.budgets import report

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
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_importing_the_packages_does_not_import_torch():
    heavy = "[m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules]"
    code = f"for line in {PUBLIC}:\n    exec(line)\n    assert not {heavy}, (line, {heavy})\nprint('none')"
    assert last_line(code) == "none"


def test_type_checkers_know_every_public_name():
    file = Path(lora_lab.__file__)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    assert {*ast.literal_eval(lists[0])} == imported - {"Any", "TYPE_CHECKING", "import_module"}
    assert file.with_name("py.typed").exists()  # otherwise, type checkers ignore an installed package's types


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


def test_no_circular_imports():
    packages = {"lora_lab", "lora_course"}  # these look up a public name when it is used, which isn't an import
    graph = grimp.build_graph(*packages, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules - packages}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # raises CycleError


def test_exceeded_budget_and_unlisted_file_are_reported(tmp_path):
    (tmp_path / "lora_lab" / "methods" / "deep").mkdir(parents=True)
    (tmp_path / "lora_lab" / "methods" / "deep" / "one.py").write_text("a\nb\nc\n")
    (tmp_path / "lora_lab" / "panel.js").write_text("a\n")
    (tmp_path / "budgets.toml").write_text('"lora_lab/methods/**/*.py" = 2')
    exceeded, unlisted = report(tmp_path)[1]
    assert exceeded.startswith("lora_lab/methods/**/*.py has 3 lines")
    assert unlisted.startswith("lora_lab/panel.js is in no room")
