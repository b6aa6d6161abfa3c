import ast
import inspect
import re
import shlex
from importlib import import_module

import click
import pytest
from click.testing import CliRunner
from PIL import Image

import lora_lab
from benchmarks import early_exit
from lora_course.cli import commands
from lora_lab.accounting.gpus import card
from lora_lab.experiments import racing
from lora_lab.files import read_json
from lora_lab.methods import REGISTRY
from tests.conftest import ROOT

PAGES = {path: path.read_text(encoding="utf-8") for pattern in ("*.md", "docs/*.md") for path in ROOT.glob(pattern)}
README, GUIDE = PAGES[ROOT / "README.md"], PAGES[ROOT / "docs" / "guide.md"]


def unknown_options(name: str, words: list[str]) -> set[str]:
    if "--gpu" in words:
        card(words[words.index("--gpu") + 1])  # raises for an unknown or ambiguous name
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    return given - {option for p in commands.commands[name].params for option in (*p.opts, *p.secondary_opts)}


def test_links_lead_to_existing_files_and_headings():
    for page in [*PAGES, *ROOT.glob("data/**/README.md")]:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:)([^()\s]*)\)", text):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), (page, link)
            headings = re.findall(r"^#{1,3} (.*)$", target.read_text(encoding="utf-8") if anchor else "", re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in {"", *anchors}, (page, link)  # as GitHub and MyST name them


def test_examples_use_existing_commands_and_options():
    for page, text in PAGES.items():
        names = set()
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            for line in re.findall(r"^(?:\.venv/bin/)?lora-lab +(\w.+)", block, re.MULTILINE):
                name, *words = shlex.split(line, comments=True)
                assert not unknown_options(name, words), (page, line)
                positional = any(isinstance(parameter, click.Argument) for parameter in commands.commands[name].params)
                assert positional or not words or words[0].startswith(("--", "...")), (page, line)
                names.add(name)
        if page.name == "commands.md":
            assert names | {"lab"} == set(commands.commands)
        for line in re.findall(r"`(?:\S*[\\/])?lora-lab (\w[^`\n]*)`", text):  # within a sentence
            name, *words = shlex.split(line)
            assert not unknown_options(name, words), (page, line)


def test_guide_lists_every_panel_with_its_arguments_and_imports_existing_names():
    calls = re.findall(r"^\| `(\w+Panel\(.*?\))` \|", GUIDE, re.MULTILINE)
    assert {call.partition("(")[0] for call in calls} == {name for name in lora_lab.__all__ if name.endswith("Panel")}
    for text in calls:
        call = ast.parse(text, mode="eval").body
        panel = getattr(lora_lab, text.partition("(")[0])
        inspect.signature(panel).bind(*call.args, **{str(keyword.arg): None for keyword in call.keywords})
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            for name in node.names if isinstance(node, ast.ImportFrom) else ():
                assert hasattr(import_module(str(node.module)), name.name), name.name


def test_readme_is_short_and_describes_its_animation():
    assert len(README.splitlines()) <= 120
    ((alt_text, file),) = re.findall(r"!\[(.*?)\]\((.*?)\)", README)
    assert len(alt_text.split()) >= 15
    assert (ROOT / file).stat().st_size <= 2_000_000
    with Image.open(ROOT / file) as picture:
        assert picture.n_frames > 20


def test_parameter_counts_are_exact():
    rows = re.findall(r"^\| (`[a-z].*?) \| .*? \| ([\d,]+) \| .*?\|$", README + GUIDE, re.MULTILINE)
    counts = {options: count for cell, count in rows for options in re.findall("`(.*?)`", cell)}
    assert {options.split()[0] for options in counts} == {*REGISTRY, "qlora"}
    for options, count in counts.items():
        command = ["params", "minilm", "--num-labels", "2", "--method", *options.split(), "--json"]
        assert f'"trainable": {count.replace(",", "")},' in CliRunner().invoke(commands, command).stdout, options


def test_guide_says_what_choose_saves_and_may_cost_in_the_stored_sweeps():
    *_, words = early_exit.report()
    found = re.fullmatch(r"(\d+) grids: (\d+)% of the steps saved \[(\d+)%, (\d+)%\]; .* up to ([\d.]+)\.", words)
    grids, saved, low, high, bound = found.groups()
    assert f"In {grids} stored grids of MiniLM on the task `rt`, `--choose` saved {saved}% of the steps" in GUIDE
    assert f"of the steps (95% interval: {low}% to {high}%)" in GUIDE
    assert f"costs up to {bound} points" in GUIDE
    assert float(bound) == racing.BOUND


def test_scripts_in_docs_can_be_imported_and_the_stored_words_are_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    scripts = {script.stem: import_module(script.stem) for script in (ROOT / "docs").glob("*.py")}
    stored, told = read_json(scripts["words"].FILE)["read"], scripts["words"].readings()
    assert stored.keys() == told.keys()
    for text, (sure, *numbers) in stored.items():
        assert (sure / 10, *numbers) == pytest.approx((told[text][0] / 10, *told[text][1:]), abs=0.11), text
