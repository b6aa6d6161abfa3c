"""Build the API reference from the docstrings: `make api`, or `python docs/api.py [FOLDER]`. It needs `.[docs]`."""

import pkgutil
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pdoc
import pdoc.render

import lora_course
import lora_lab

# Not documented: commands, and the modules that grade notebooks, check machines or install the lab offline.
SKIPPED = (
    "lora_lab.cli.", "lora_lab.shipped.", "lora_lab.__main__.", "lora_course.cli.", "lora_course.__main__.",
    *(f"lora_course.classroom.{name}." for name in ("grading", "kernel", "preflight", "wheelhouse")),
)  # fmt: skip
ENTRY = re.compile(r"(?P<indent> *)(?P<name>\S.{0,40}?) {2,}(?P<words>\S.*)")  # "rank    where the slider starts"


def as_markdown(docstring: str) -> str:
    """Convert a docstring to Markdown: two-column lines become a list, and `Raises:` gets its own paragraph.

    Lines indented by four spaces stay code.
    """
    lines: list[str] = []
    in_list = False
    for line in docstring.splitlines():
        entry = ENTRY.fullmatch(line)
        if entry and len(entry["indent"]) < 4:
            lines += [*([] if in_list else [""]), f"- **{entry['name']}** {entry['words']}"]
            in_list = True
        elif in_list and line.startswith("  "):
            lines[-1] += f" {line.strip()}"  # continues the entry
        else:
            new_paragraph = in_list or line.startswith(("Raises:", "Source:", "Formula:", "Shapes:"))
            lines += ["", line] if new_paragraph and line else [line]
            in_list = False
    return "\n".join(lines)


def modules() -> list[str]:
    """Return the names of both packages and their modules. pdoc itself stops at a package with an `__all__`."""
    names = []
    for package in (lora_lab, lora_course):
        infos = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [package.__name__, *(info.name for info in infos if not f"{info.name}.".startswith(SKIPPED))]
    return names


def build(folder: Path, names: Sequence[str]) -> None:
    """Write a page for each module, an index and a search index. Warnings from pdoc are errors."""
    for name in lora_lab.__all__:  # load lazy names, which pdoc would miss
        getattr(lora_lab, name)
    pdoc.render.configure(docformat="markdown", footer_text=f"lora_lab {lora_lab.__version__}")
    pdoc.render.env.filters["to_markdown"] = as_markdown
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # Names imported only for type checkers are shown as written.
        warnings.filterwarnings("ignore", message="Error parsing type annotation")
        pages = {name: pdoc.doc.Module.from_name(name) for name in names}
        for name, page in pages.items():
            page.submodules = [pages[child] for child in pages if child.rpartition(".")[0] == name]
            _write(folder / f"{name.replace('.', '/')}.html", pdoc.render.html_module(page, pages))
        _write(folder / "index.html", pdoc.render.html_index(pages))
        _write(folder / "search.js", pdoc.render.search_index(pages))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/api")
    build(target, modules())
    print(f"{len(list(target.rglob('*.html')))} pages: open {target / 'index.html'}")
