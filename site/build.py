"""Build the site from lessons, docs and panels: `python site/build.py [FOLDER | --students FOLDER]`.

The script prepares Sphinx's input: the solved notebooks (with placeholders for panels, which `host.js` fills in), the
pages of docs/, the panels' scripts, and the fonts. It runs no lesson. The script and the site need no network.
"""

import argparse
import base64
import html
import io
import itertools
import json
import re
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import answers
import font_source_sans_pro
import font_source_serif_pro
import yaml
import ziamath
from fontTools import subset, ttLib
from sphinx.cmd.build import main as sphinx

import lora_lab
from lora_course.lesson import estimate
from lora_lab.files import read_json
from lora_lab.widgets import base

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent
OUT = SITE / "build" / "html"
SCALE, WIDE = 1.25, 500  # a panel picture's pixels per CSS pixel; width above which a picture scrolls on a phone

FACES = (
    ("Lab Serif", font_source_serif_pro, "files/SourceSerifPro-Regular.ttf", ""),
    ("Lab Serif", font_source_serif_pro, "files/SourceSerifPro-It.ttf", "font-style: italic;"),
    ("Lab Serif", font_source_serif_pro, "files/SourceSerifPro-Semibold.ttf", "font-weight: 600 700;"),
    ("Lab Sans", font_source_sans_pro, "files/SourceSansPro-Regular.ttf", ""),
    ("Lab Sans", font_source_sans_pro, "files/SourceSansPro-Semibold.ttf", "font-weight: 600 700;"),
    ("Lab Math", ziamath, "fonts/STIXTwoMath-Regular.ttf", ""),
)
CHARACTERS = (  # Latin, Greek, punctuation, super- and subscripts, arrows and operators, brackets, italic math letters
    (0x20, 0x7F), (0xA0, 0x180), (0x370, 0x400), (0x2010, 0x2060), (0x2070, 0x20A0), (0x2100, 0x2300),
    (0x2308, 0x230C), (0x27E8, 0x27F0), (0x1D400, 0x1D468), (0x1D6A4, 0x1D736),
)  # fmt: skip

FIXES = {  # for accessibility errors that axe finds in the theme, and line breaks between a formula and its punctuation
    r'<p class="caption" role="heading"': r'\g<0> aria-level="2"',
    r'<aside class="sidebar-drawer"': r'\g<0> aria-label="Site"',
    r'<aside class="toc-drawer[^"]*"': r'\g<0> aria-label="On this page"',
    r'<div class="highlight"><pre(?=>)|<div class="table-wrapper[^"]*"': r'\g<0> tabindex="0"',
    r'(<summary) aria-label="Toggle hidden content"': r"\1",
    r'(?<=text_html">)<img [^>]* wide"[^>]*>': r'<div class="table-wrapper" tabindex="0">\g<0></div>',  # scrolls
    r'<div id="search-results">': r"<h1>Search</h1>\g<0>",
    r"<th[^>]*>(<p></p>)?</th>": "<td></td>",
    r'<math [^>]*display="inline">(?:(?!</math>).)*</math>[.,;:?!)]+': r'<span class="unbroken">\g<0></span>',
}
LONG = 79  # characters in a line of code that fits on every wide screen
TEACHER_PAGES = ("teaching.md", "sheets.md", "quiz_answers.md")
UNUSED = shutil.ignore_patterns(".buildinfo*", "objects.inv", "*.map")


def place_panel(snapshot: dict[str, Any], picture: str, src: Path) -> str:
    """Write a panel's script and return the panel's markup."""
    script = src / "_static" / "panels" / f"{snapshot['panel']}.js"
    script.write_text(base.classic(snapshot["file"], snapshot["panel"]), encoding="utf-8")
    return base.place(snapshot, picture)


def as_html(output: dict[str, Any], name: str, src: Path) -> dict[str, Any]:
    """Convert the panel or picture in an output to HTML, and write the picture to a file called `name`."""
    data = output.get("data", {})
    if "text" in output:  # drop the title and the time, which a page has anyway
        return {**output, "text": re.sub(r"^\d\d · .*\nAbout .*\n", "", "".join(output["text"]))}
    if "image/png" in data:
        image = base64.b64decode("".join(data["image/png"]))
        (src / "_static" / "pictures" / name).write_bytes(image)
        about = output["metadata"]["image/png"]
        source, alt = f"../_static/pictures/{name}", html.escape(about["alt"])
        snapshot = base.uncompressed("".join(data[base.MIME])) if base.MIME in data else {}
        if snapshot.get("panel") == "TrainPanel":
            snapshot["state"]["at"] = 0  # a replay starts before its first step, to hide the result
        markup = place_panel(snapshot, source, src) if snapshot else f'<img src="{source}" alt="{alt}">'
        width, height = (round(n / (SCALE if snapshot else 1)) for n in struct.unpack(">II", image[16:24]))
        width, height = about.get("width", width), about.get("height", height)  # a plot has two pixels per CSS pixel
        wide = " wide" * (width > WIDE)
        size = f'<img class="lab-picture{wide}" loading="lazy" width="{width}" height="{height}"'
        return {**output, "data": {"text/html": markup.replace("<img", size)}, "metadata": {}}
    if "<table" in (markup := "".join(data.get("text/html", ""))):
        return {**output, "data": {"text/html": f'<div class="table-wrapper">{markup}</div>'}}
    return output


def lesson(file: Path, src: Path) -> dict[str, Any]:
    """Return a solved notebook with live panels; each exercise gets a form, a puzzle and a hidden solution below it."""
    solved, exercises = read_json(file), read_json(ROOT / "notebooks" / file.name)["cells"]
    cells: list[dict[str, Any]] = []
    lines = SITE / f"{file.stem}.json"  # lines of code that the reader puts in order, for `puzzle.js`
    puzzle = [answers.data("data-puzzle hidden", read_json(lines))] if lines.is_file() else []
    for number, (cell, exercise) in enumerate(zip(solved["cells"], exercises, strict=True)):
        source, outputs = "".join(cell["source"]), cell.get("outputs", [])
        shown = [as_html(output, f"{file.stem}-{number}-{i}.png", src) for i, output in enumerate(outputs)]
        outputs[:] = [output for output in shown if output.get("text") != ""]
        if "solution" in cell["metadata"].get("tags", []):
            check_names = re.findall(r"checks\.check_(\w+)\(", "".join(exercise["source"]))
            forms = [answers.cell(name) for name in check_names if name in answers.forms()]
            cells += [exercise, *forms, *puzzle, {**cell, "metadata": {"tags": ["hide-cell"]}}]
            puzzle = []
        elif "lesson.receipt(" in source:
            words = '<p class="lab-caught"></p>\n\nIn Jupyter, you get a line to hand in. This page sends nothing.'
            cells += [{**cell, "outputs": []}, {"cell_type": "markdown", "metadata": {}, "source": words}]
        else:
            tags = [tag for tag in ("predict", "reveal", "calibration") if f"lesson.{tag}(" in source]
            tags += cell["metadata"].get("tags", [])  # the tags above are classes for predict.js
            plumbing = re.search(r"lesson\.(start|predict)\(|\bplt\.", source)  # not what the lesson teaches
            folded = "hide-output" not in tags and (bool(plumbing) or "hide-input" in tags)
            prompt = {"code_prompt_show": "Show the {type}" if "hide-output" in tags else "Show the code"}
            cells += map(answers.cell, re.findall("^(first_diagnosis) = ", source, re.M))  # guesses, to be judged later
            cells.append({**cell, "metadata": {"tags": sorted({*tags, *["hide-input"] * folded}), "mystnb": prompt}})
            cells += [answers.data("data-words data-seal", read_json(SITE / "words.json"))] * ("words" in tags)
    title, rest = "".join(cells[0]["source"]).split("\n", 1)
    minutes = f'<p class="minutes">{estimate(ROOT / "notebooks" / file.name)[1]:.0f} minutes (estimated)</p>'
    cells[0] = {**cells[0], "source": f"{title}\n\n{drawing(file)}\n\n{minutes}\n{rest}"}
    return {**solved, "cells": [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(cells)]}


def drawing(file: Path) -> str:
    """Return the small drawing for a lesson, as an inline SVG that uses the page's colors."""
    drawn: str = re.findall(f'<g id="{file.stem[:2]}">(.*?)</g>', (SITE / "drawings.svg").read_text("utf-8"))[0]
    return f'<svg class="drawing" viewBox="0 0 96 64" aria-hidden="true">{drawn}</svg>'


def linked(file: Path, urls: dict[Path, str]) -> str:
    """Return a page from docs/ with adjusted links. Links to files outside the site become plain text."""

    def link(match: re.Match[str]) -> str:
        words, path, anchor = match.groups()
        if not path or re.match("[a-z]+:", path):
            return match[0]
        url = urls.get((file.parent / path).resolve())
        return f"[{words}]({url}{anchor})" if url else words

    return re.sub(r"(?<!!)\[([^\[\]]*)\]\(([^()\s#]*)([^()\s]*)\)", link, file.read_text(encoding="utf-8"))


def front(src: Path, pages: list[Path]) -> str:
    """Return the front page: `index.md` with its panels and its lists of lessons filled in."""

    def panel(match: re.Match[str]) -> str:
        options = yaml.safe_load(match[2])
        picture = options.pop("picture", "")  # shown until the panel is drawn
        made = getattr(lora_lab, match[1])(**options)
        if match[1] == "RankPanel":  # leave out the other matrices: lesson 03 asks about them
            made.cuts, made.choices = {}, [choice for choice in made.choices if choice[0] == made.source]
        if picture:
            shutil.copy(ROOT / picture, src / "_static" / "pictures")
            picture = f"_static/pictures/{Path(picture).name}"
        return place_panel(made.snapshot(), picture, src)

    def entry(file: Path) -> str:
        first = "".join(read_json(file)["cells"][0]["source"]).split("\n\n")[1]
        opening = " ".join(re.sub("<!--.*?-->", "", first).split())
        title, time, _ = estimate(ROOT / "notebooks" / file.name)
        return f"- {drawing(file)}[{title}](lessons/{file.name})\n\n  {opening}\n\n  {time:.0f} minutes (estimated)\n"

    content = (SITE / "index.md").read_text(encoding="utf-8")
    content = re.sub(r"```\{panel\} (\w+)\n(.*?)```", panel, content, flags=re.S)
    for group, is_core in (("core", True), ("electives", False)):
        files = [file for file in pages if (file.stem < "10") == is_core]
        entries = ":::{container} lessons\n" + "\n".join(map(entry, files)) + "\n:::"
        content = content.replace(f"% lessons: {group}", entries if files else "")
        content = content.replace(f"% pages: {group}", "\n".join(f"lessons/{file.stem}" for file in files))
    return content


def hung(match: re.Match[str]) -> str:
    """Return code whose long lines wrap: the rest goes below an early comment, or else is indented by 4 columns."""

    def line(marked: str) -> str:
        plain = html.unescape(re.sub("<[^>]*>", "", marked))
        if len(plain) <= LONG or marked.count("<span") != marked.count("</span"):
            return marked
        column = re.search(r"(?<=\S)(  +(?=# )|   +)", plain)
        column = column if column and column.end() <= LONG // 2 + 10 else None
        deep = column.end() + 2 * (plain[column.end()] == "#") if column else len(plain) - len(plain.lstrip()) + 4
        return f'<span class="long" style="--deep: {deep}ch">{marked}</span>'

    return "\n".join(map(line, match[0].split("\n")))


def stacked(match: re.Match[str]) -> str:
    """Return a table. If it is too wide for a phone, each cell gets the name of its column, which `site.css` shows."""
    head, body = match[0].split("<tbody>", 1)
    heads = [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd]\b.*?</t[hd]>", head, flags=re.S)]
    cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td\b.*?</td>", body, flags=re.S)]
    if sum(map(bool, heads)) < 4 or max(map(len, cells)) < 40:
        return match[0]
    names = itertools.cycle(heads)  # FIXES has turned an empty head cell into a td
    named = re.sub(r"<td\b", lambda _: f'<td data-column="{next(names)}"', body)
    return f"{head}<tbody>{named}".replace('class="', 'class="stacked ', 1)


def fonts() -> str:
    """Return CSS with embedded fonts, reduced to CHARACTERS. Firefox refuses font files on `file://`.

    The fonts' license (OFL) requires its notice in each font file, but modified fonts may not keep their names.
    """
    rules = ""
    for family, package, file, style in FACES:
        face = ttLib.TTFont(Path(package.__file__).parent / file, recalcTimestamp=False)
        options = subset.Options(hinting=False, drop_tables=["DSIG"], name_IDs=[0, 13, 14], notdef_outline=True)
        options.layout_features.append("tnum")  # digits of equal width
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=[code for first, end in CHARACTERS for code in range(first, end)])
        subsetter.subset(face)
        face.flavor = "woff"
        face.save(buffer := io.BytesIO())
        data = base64.b64encode(buffer.getvalue()).decode()
        rules += f'@font-face {{ font-family: "{family}"; {style} src: url(data:font/woff;base64,{data}); }}\n'
    return rules


def prepare(src: Path, students: bool) -> None:
    """Write Sphinx's input, without TEACHER_PAGES if the site is for students."""
    for folder in ("lessons", "_static/pictures", "_static/panels"):
        (src / folder).mkdir(parents=True)
    pages = sorted((ROOT / "notebooks" / "solutions").glob("[0-9]*.ipynb"))
    for file in pages:
        (src / "lessons" / file.name).write_text(json.dumps(lesson(file, src)), encoding="utf-8")
    left_out = ("*.py", "__pycache__", *(TEACHER_PAGES if students else ()))
    shutil.copytree(ROOT / "docs", src / "docs", ignore=shutil.ignore_patterns(*left_out))
    docs = {ROOT / "docs" / file.name: file.name for file in (src / "docs").glob("*.md")}
    lessons = {ROOT / "notebooks" / file.name: f"../lessons/{file.name}" for file in pages}
    urls = {file.name[:2]: url for file, url in lessons.items()}
    for file in docs:
        text = linked(file, {**docs, **lessons, ROOT / "README.md": "../index.md"})
        if file.name == "glossary.md":
            text = re.sub(r"\| (\d\d) \|$", lambda lesson: f"| [{lesson[1]}]({urls[lesson[1]]}) |", text, flags=re.M)
        (src / "docs" / file.name).write_text(text, encoding="utf-8")
    text = front(src, pages)
    if students:
        for_teachers = r"## For teachers\n.*?(?=\n## )|^docs/teaching\n|^Teaching tomorrow\?.*?\n\n"
        text = re.sub(for_teachers, "", text, flags=re.S | re.M)
    (src / "index.md").write_text(text, encoding="utf-8")
    (src / "_static" / "site.css").write_text(fonts() + (SITE / "site.css").read_text("utf-8"), encoding="utf-8")
    for script in (base.JS / "host.js", *SITE.glob("*.js")):
        shutil.copy(script, src / "_static")


def build(out: Path, students: bool) -> None:
    """Build the site in a new folder. Only the default folder may exist already."""
    if out != OUT and out.exists():
        sys.exit(f"{out} already exists: give the name of a new folder")
    with tempfile.TemporaryDirectory() as folder:  # MyST-NB writes the solved lessons next to the pages
        src, trees, built = (Path(folder, name) for name in ("src", "trees", "html"))
        prepare(src, students)
        options = ["-q", "-W", "--keep-going", "-c", str(SITE), "-D", f"html_static_path={src / '_static'}"]
        if failed := sphinx([*options, "-d", str(trees), str(src), str(built)]):
            sys.exit(failed)
        for file in built.rglob("*.html"):
            content = file.read_text(encoding="utf-8")
            for pattern, replacement in FIXES.items():
                content = re.sub(pattern, replacement, content)
            content = re.sub(r'(?<=<div class="highlight"><pre tabindex="0">).*?(?=</pre>)', hung, content, flags=re.S)
            content = re.sub(r'<table class="docutils.*?</table>', stacked, content, flags=re.S)
            file.write_text(content, encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(built, out, ignore=UNUSED, copy_function=shutil.copyfile, dirs_exist_ok=True)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out / 'index.html'}: {len(list(out.rglob('*.html')))} pages, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the lessons, docs and panels as pages.", allow_abbrev=False)
    folders = parser.add_mutually_exclusive_group()
    folders.add_argument("folder", nargs="?", default=OUT, type=Path, help="a new folder (default: site/build/html)")
    folders.add_argument("--students", metavar="FOLDER", type=Path, help="a new folder, without pages for teachers")
    given = parser.parse_args()
    build((given.students or given.folder).resolve(), students=bool(given.students))
