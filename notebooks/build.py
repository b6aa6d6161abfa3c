"""Build the lessons from their sources in py:percent: exercises without outputs, and solved notebooks with outputs.

python notebooks/build.py            all lessons, at full length; with FAST=1, a short version
python notebooks/build.py 02         lessons whose name begins with 02
python notebooks/build.py --no-run   update the cells without running them

A cell titled `claim` asserts what the lesson says. It runs in builds and tests and is left out of the notebooks. A cell
that plots has an `alt`, which describes its plot for readers who can't see it.
"""

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from still import small_png, still

from lora_lab.widgets.base import MIME, uncompressed

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def lessons(prefix: str = "") -> list[Path]:
    """Return the sources whose name begins with a prefix, in order."""
    return sorted(HERE.glob(f"src/{prefix}*.py"))


def parser_of(description: str | None, *flags: str) -> argparse.ArgumentParser:
    """Return the parser of a command line with flags and the beginnings of lessons' names."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=style, allow_abbrev=False)
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="the beginning of a lesson's name; default: all")
    for flag in flags:
        parser.add_argument(flag, action="store_true", help="see above")
    return parser


def chosen(prefixes: list[str]) -> list[Path]:
    """Return the sources whose names begin with one of the prefixes, by default all."""
    for prefix in (prefixes := prefixes or [""]):
        if not lessons(prefix):
            sys.exit(f"no lesson begins with '{prefix}'; there are {', '.join(source.stem for source in lessons())}")
    return [source for prefix in prefixes for source in lessons(prefix)]


def built(source: Path, *, solved: bool, claims: bool = False) -> NotebookNode:
    """Return a lesson's notebook with its exercises or its solutions, without outputs.

    claims   Include the cells that assert what the lesson says; the ids of the other cells stay the same.
    """
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    left_out = {"exercise" if solved else "solution"} | (set() if claims else {"claim"})
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.get("title") not in left_out]
    number = 0
    for cell in notebook.cells:
        tag, alt = cell.metadata.get("title"), cell.metadata.get("alt")
        cell.id = f"{'claim' if tag == 'claim' else 'cell'}-{number:02d}"
        number += tag != "claim"
        cell.metadata = ({"tags": [tag]} if tag else {}) | ({"alt": alt} if alt else {})
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": python, "language_info": {"name": "python"}}
    return notebook


def target(source: Path, *, solved: bool) -> Path:
    """Return the path of the built notebook."""
    return HERE / ("solutions" if solved else ".") / f"{source.stem}.ipynb"


class Client(NotebookClient):
    """A client that doesn't echo widget outputs to the kernel: with an echo, it may miss a reply and wait forever."""

    def on_comm_open_jupyter_widget(self, msg: dict[str, Any]) -> Any:
        if widget := super().on_comm_open_jupyter_widget(msg):
            widget.send = lambda *_, **__: None
        return widget


def execute(notebook: NotebookNode, folder: str, timeout: int = 600) -> NotebookNode:
    """Run all cells in `folder`, each for at most `timeout` seconds. The first error stops the run."""
    os.environ["LORA_LAB_HEADLESS"] = "1"
    resources = {"metadata": {"path": folder}}
    # A clean exit of a kernel that has imported torch takes some seconds.
    client = Client(notebook, resources=resources, timeout=timeout, shutdown_kernel="immediate")
    client.execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        if cell.cell_type == "code":
            outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
            cell.outputs = _join_streams([part for output in outputs for part in _without_widget(output, client)])
    return notebook


def add_pictures(notebook: NotebookNode) -> NotebookNode:
    """Add a picture to each panel for readers without a kernel, compress all pictures, and store alt texts of plots."""
    outputs = [(cell.metadata, output) for cell in notebook.cells for output in cell.get("outputs", [])]
    for metadata, output in outputs:
        if "image/png" in output.get("data", {}):
            alt = metadata.get("alt") or output.data["text/plain"]  # a Picture's text is its alt text
            output.metadata.setdefault("image/png", {}).setdefault("alt", alt)
            output.data["image/png"] = _small(output.data["image/png"])
        if "text/html" in output.get("data", {}):  # the figures of `lesson.slider`
            html = output.data["text/html"]
            output.data["text/html"] = re.sub('(?<=image/png;base64,)[^"]+', lambda match: _small(match[0]), html)
        if MIME in output.get("data", {}):
            snapshot = uncompressed(output.data[MIME])
            output.data["image/png"] = base64.b64encode(still(snapshot)).decode()
            output.metadata["image/png"] = {"alt": snapshot["words"]}
    return notebook


def _small(png: str) -> str:
    return base64.b64encode(small_png(Image.open(io.BytesIO(base64.b64decode(png))))).decode()


def _without_widget(output: NotebookNode, client: NotebookClient) -> list[NotebookNode]:
    """Replace a widget, which shows nothing without a kernel, by its picture and text, or by its children's outputs."""
    view = output.get("data", {}).pop(WIDGET, {})
    children = client.widget_state.get(view.get("model_id"), {}).get("children") or []
    widgets = [client.comm_objects.get(child.removeprefix("IPY_MODEL_")) for child in children]
    return [part for widget in widgets if widget for part in widget.outputs] or [output]


def _join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join consecutive pieces of printed text, which kernels split at random places."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and "text" in output and joined[-1].get("name", "") == output.get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def main(arguments: list[str]) -> None:
    """Build the lessons that the command line names."""
    options = parser_of(__doc__, "--no-run").parse_intermixed_args(arguments)
    run = not options.no_run
    for source in chosen(options.lessons):
        for solved in (False, True):
            notebook = built(source, solved=solved, claims=run and solved)
            if run and solved:
                with tempfile.TemporaryDirectory() as folder:
                    notebook = execute(notebook, folder, timeout=3600)  # lesson 08 compares four methods in one cell
                notebook = add_pictures(notebook)
                notebook.cells = [cell for cell in notebook.cells if "claim" not in cell.metadata.get("tags", [])]
            path = target(source, solved=solved)
            path.parent.mkdir(exist_ok=True)
            nbformat.write(notebook, path)
            print(path.relative_to(HERE))


if __name__ == "__main__":
    main(sys.argv[1:])
