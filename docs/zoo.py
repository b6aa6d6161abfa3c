"""Write the modules of every zoo model, and the layers that `LoRAPanel` draws: `python docs/zoo.py`."""

import json
from dataclasses import astuple, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from lora_lab.accounting.models import LAYER, ZOO_MODULES, Architecture, describe, meta_model, zoo
from lora_lab.widgets.lora_panel import ZOO_LAYERS, layers_of


def plain(a: Architecture) -> dict[str, Any]:
    """Convert a description to plain values, with equal consecutive layers as [first layer, count, rows].

    In the rows, # stands for the layer's number. Modules outside the layers count as one layer.
    """
    runs: list[list[Any]] = []
    for layer, group in groupby(a.modules, key=lambda module: module.layer):
        rows = [[LAYER.sub("#", module.name, count=1), *astuple(module)[1:]] for module in group]
        if runs and runs[-1][2] == rows:
            runs[-1][1] += 1
        else:
            runs.append([layer or 0, 1, rows])
    return {field.name: getattr(a, field.name) for field in fields(a)} | {"modules": runs}


def write(file: Path, models: dict[str, Any], **style: Any) -> None:
    """Write a file with one line per model."""
    lines = [f"{json.dumps(name)}: {json.dumps(value, **style)}" for name, value in models.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Write both files; the second is made from the first."""
    write(ZOO_MODULES, {name: plain(describe(meta_model(name), name)) for name in zoo()})
    write(ZOO_LAYERS, {name: layers_of(name) for name in zoo()}, separators=(",", ":"))


if __name__ == "__main__":
    main()
