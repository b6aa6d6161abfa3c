"""What the pages name exists: links, commands and options, panels and their arguments, methods and their counts."""

import ast
import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path

import click
from click.testing import CliRunner
from PIL import Image

import lora_lab
from lora_course.cli import commands
from lora_course.panels import voices_panel
from lora_lab.methods import REGISTRY
from tests.docs import ROOT

PAGES = {path: path.read_text(encoding="utf-8") for pattern in ("*.md", "docs/*.md") for path in ROOT.glob(pattern)}
README, GUIDE = PAGES[ROOT / "README.md"], PAGES[ROOT / "docs" / "guide.md"]


def anchors(page: Path) -> set[str]:
    """What GitHub and MyST call the headings of a page."""
    headings = re.findall(r"^#{1,3} (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_links_lead_to_a_file_and_to_a_heading_of_it():
    for page in [*PAGES, *ROOT.glob("data/**/README.md")]:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:)([^()\s]*)\)", text):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), (page, link)
            assert not anchor or anchor in anchors(target), (page, link)


def test_examples_name_real_commands_and_options_and_one_page_has_every_command():
    found: dict[Path, set[str]] = {}
    for page, text in PAGES.items():
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            for line in re.findall(r"^(?:\.venv/bin/)?lora-lab +(\w.+)", block, re.MULTILINE):
                name, *arguments = shlex.split(line, comments=True)
                command = commands.commands[name]
                given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
                assert given <= options(command), (page, line)
                takes = any(isinstance(parameter, click.Argument) for parameter in command.params)
                assert takes or not arguments or arguments[0].startswith(("--", "...")), (page, line)
                found.setdefault(page, set()).add(name)
    assert found[ROOT / "docs" / "commands.md"] | {"lab"} == set(commands.commands)


def test_panels_take_the_arguments_of_the_guide_and_its_code_imports_what_exists():
    lines = re.findall(r"^\| `(\w+Panel\(.*?\))` \|", GUIDE, re.MULTILINE)
    assert {line.partition("(")[0] for line in lines} == {name for name in lora_lab.__all__ if name.endswith("Panel")}
    for line in lines:
        call = ast.parse(line, mode="eval").body
        assert isinstance(call, ast.Call)
        panel = getattr(lora_lab, line.partition("(")[0])
        inspect.signature(panel).bind(*call.args, **{str(keyword.arg): None for keyword in call.keywords})
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            for name in node.names if isinstance(node, ast.ImportFrom) else ():
                assert hasattr(import_module(str(node.module)), name.name), name.name


def test_the_readme_is_short_and_its_picture_moves():
    assert len(README.splitlines()) <= 120
    ((words, file),) = re.findall(r"!\[(.*?)\]\((.*?)\)", README)
    assert len(words.split()) >= 15
    assert (ROOT / file).stat().st_size <= 2_000_000
    with Image.open(ROOT / file) as picture:
        assert picture.n_frames > 20


def test_every_method_of_the_readme_trains_as_many_numbers_as_it_says():
    rows = re.findall(r"^\| (`[a-z].*?) \| .*? \| ([\d,]+) \| .*?\|$", README, re.MULTILINE)
    said = {words: number for cell, number in rows for words in re.findall("`(.*?)`", cell)}
    assert {words.split()[0] for words in said} == {*REGISTRY, "qlora"}
    for words, number in said.items():
        command = ["params", "minilm", "--num-labels", "2", "--method", *words.split(), "--json"]
        assert f'"trainable": {number.replace(",", "")},' in CliRunner().invoke(commands, command).stdout, words


def test_commands_within_a_line_and_panels_of_the_readmes_questions_exist():
    for page, text in PAGES.items():
        for line in re.findall(r"`(?:\S*[\\/])?lora-lab (\w[^`\n]*)`", text):
            name, *words = shlex.split(line)
            assert {word for word in words if word.startswith("--")} <= options(commands.commands[name]), (page, line)
    section = README.partition("## Ten questions")[2].partition("\n## ")[0]
    assert section
    panels = set(re.findall(r"`(\w+Panel)`", section))
    assert [name for name in panels if not hasattr(lora_lab, name) and not hasattr(voices_panel, name)] == []


def test_the_scripts_that_write_pages_and_data_find_what_they_import(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    for script in (ROOT / "docs").glob("*.py"):
        import_module(script.stem)
