"""The API reference, made from the docstrings: `make api`, or `python docs/api.py FOLDER`; needs `.[docs]`.

What Python says of a name, the page says: there is no second text that could grow old. Nothing is fetched.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pdoc

import lora_lab

# Not of the package's own face: what runs on another machine's Python, commands, and what starts or grades a process.
WITHOUT = ("!lora_lab.wheelhouse", "!lora_lab.cli", "!lora_lab.grading", "!lora_lab.preflight", "!lora_lab.__main__")
ENTRY = re.compile(r"(?P<indent> *)(?P<name>\S.{0,40}?) {2,}(?P<words>\S.*)")  # "rank    where the slider starts"


def as_markdown(docstring: str) -> str:
    """A docstring in the lab's style as Markdown: its columns of names and words as a list, a line of its own for
    `Raises`; what is set in by four is code, there and here.
    """
    lines: list[str] = []
    listed = False
    for line in docstring.splitlines():
        entry = ENTRY.fullmatch(line)
        if entry and len(entry["indent"]) < 4:
            lines += [*([] if listed else [""]), f"- **{entry['name']}** {entry['words']}"]
            listed = True
        elif listed and line.startswith("  "):
            lines[-1] += f" {line.strip()}"  # the entry goes on
        else:
            apart = listed or line.startswith(("Raises:", "Source:", "Formula:", "Shapes:"))
            lines += ["", line] if apart and line else [line]
            listed = False
    return "\n".join(lines)


def build(folder: Path, *modules: str) -> None:
    """Write the pages of these modules, of the whole package when none is named. Raises: whatever pdoc warns of."""
    for name in lora_lab.__all__:  # looked up when first used; pdoc looks into what is there
        getattr(lora_lab, name)
    pdoc.render.configure(
        docformat="markdown", footer_text=f"lora_lab {lora_lab.__version__}", include_undocumented=False
    )
    pdoc.render.env.filters["to_markdown"] = as_markdown
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pdoc.pdoc(*(modules or ("lora_lab", *WITHOUT)), output_directory=folder)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/api")
    build(target, *sys.argv[2:])
    print(f"{len(list(target.rglob('*.html')))} pages: open {target / 'index.html'}")
