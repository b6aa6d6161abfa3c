"""Build the lessons from one source in py:percent: exercises without outputs, and solved notebooks, executed.

python notebooks/build.py            build all, at full length; FAST=1: a short version
python notebooks/build.py 02         only those whose name begins so
python notebooks/build.py --no-run   keep the cells in step, without outputs

A cell titled `claim` asserts what the lesson says. It runs in builds and tests and is left out of the notebooks.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from lora_lab.widgets.base import MIME
from lora_lab.widgets.still import small_png, still

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def lessons(prefix: str = "") -> list[Path]:
    """The sources, in order."""
    return sorted(HERE.glob(f"src/{prefix}*.py"))


def chosen(arguments: list[str]) -> list[Path]:
    """The sources whose names begin as a command line says, all where it says nothing; options are passed over."""
    prefixes = [word for word in arguments if not word.startswith("--")] or [""]
    for prefix in prefixes:
        if not lessons(prefix):
            sys.exit(f"no lesson begins with '{prefix}'; there are {', '.join(source.stem for source in lessons())}")
    return [source for prefix in prefixes for source in lessons(prefix)]


def built(source: Path, *, solved: bool, claims: bool = False) -> NotebookNode:
    """The notebook of a source: its exercises, or in their place its solutions; with `claims` also its assertions.

    Cell names depend on the place only.
    """
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    left_out = {"exercise" if solved else "solution"} | (set() if claims else {"claim"})
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.get("title") not in left_out]
    number = 0
    for cell in notebook.cells:
        claim = cell.metadata.get("title") == "claim"
        cell.id = f"{'claim' if claim else 'cell'}-{number:02d}"
        number += not claim
        tag = cell.metadata.pop("title", None)
        cell.metadata = {"tags": [tag]} if tag else {}
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": python, "language_info": {"name": "python"}}
    return notebook


def target(source: Path, *, solved: bool) -> Path:
    """Where a built notebook lies."""
    return HERE / ("solutions" if solved else ".") / f"{source.stem}.ipynb"


class Client(NotebookClient):
    """nbclient sends what `interact` draws back to the kernel; its socket may then miss the reply and wait forever."""

    def on_comm_open_jupyter_widget(self, msg: dict[str, Any]) -> Any:
        if widget := super().on_comm_open_jupyter_widget(msg):
            widget.send = lambda *_, **__: None
        return widget


def execute(notebook: NotebookNode, folder: str, timeout: int = 600) -> NotebookNode:
    """Run every cell with nobody watching, in `folder`, for `timeout` seconds each at most; the first error ends it.

    The kernel is then ended at once: to take leave of torch and what it has loaded takes some seconds.
    """
    os.environ["LORA_LAB_HEADLESS"] = "1"
    where = {"metadata": {"path": folder}}
    client = Client(notebook, resources=where, timeout=timeout, shutdown_kernel="immediate")
    client.execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        if cell.cell_type != "code":
            continue
        kept = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        cell.outputs = _joined([one for output in kept for one in _still(output, client)])
    return notebook


def photographed(notebook: NotebookNode) -> NotebookNode:
    """Put a picture beside each panel, for readers without a kernel, and make all pictures small."""
    for output in (one for cell in notebook.cells for one in cell.get("outputs", [])):
        if "image/png" in output.get("data", {}):
            picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
            output.data["image/png"] = base64.b64encode(small_png(picture)).decode()
        if MIME in output.get("data", {}):
            snapshot = json.loads(output.data[MIME])
            output.data["image/png"] = base64.b64encode(still(snapshot)).decode()
            output.metadata["image/png"] = {"alt": snapshot["words"]}
    return notebook


def _still(output: NotebookNode, client: NotebookClient) -> list[NotebookNode]:
    """A saved widget shows nothing without its kernel: keep its picture and words, or what `interact` drew in it."""
    view = output.get("data", {}).pop(WIDGET, {})
    children = client.widget_state.get(view.get("model_id"), {}).get("children") or []
    inside = [client.comm_objects.get(child.removeprefix("IPY_MODEL_")) for child in children]
    return [one for widget in inside if widget for one in widget.outputs] or [output]


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """What was printed in a row as one piece: where a kernel happened to cut it, a page would begin a new block."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and "text" in output and joined[-1].get("name", "") == output.get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def main(arguments: list[str]) -> None:
    """Build what the arguments ask for."""
    run = "--no-run" not in arguments
    for source in chosen(arguments):
        for solved in (False, True):
            notebook = built(source, solved=solved, claims=run and solved)
            if run and solved:
                with tempfile.TemporaryDirectory() as folder:
                    notebook = execute(notebook, folder, timeout=3600)  # lesson 08 compares four methods in one cell
                notebook = photographed(notebook)
                notebook.cells = [cell for cell in notebook.cells if "claim" not in cell.metadata.get("tags", [])]
            path = target(source, solved=solved)
            path.parent.mkdir(exist_ok=True)
            nbformat.write(notebook, path)
            print(path.relative_to(HERE))


if __name__ == "__main__":
    main(sys.argv[1:])
