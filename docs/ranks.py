"""Write what `RankPanel` opens on: `python docs/ranks.py FOLDER`, the folder of lesson 14's run "full".

The file holds one matrix of that run's update as rank-one pieces, and what is left of the whole model when every matrix
is cut to rank r, as data/results/microscope/minilm_rt.json has it. The run's singular values must be those in there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import safe_open

from lora_course.experiments.microscope import RANKS, Microscope, views_from
from lora_course.experiments.truncation import specimen, specimen_of
from lora_course.lesson import reference_microscope
from lora_lab.errors import BadValue
from lora_lab.experiments.low_rank import spectrum
from lora_lab.files import write_atomically
from lora_lab.training.assets import asset_path, shipped
from lora_lab.widgets.matrices import CUTS, packed

MATRIX = "encoder.layer.0.attention.self.query.weight"
NAMES = {  # of a source in the reference, and its name here
    "full": ("full", "full fine-tuning"),
    "update": ("LoRA", "LoRA"),
    "noise": ("random like full", "random"),
}


def update_of(folder: Path, name: str) -> np.ndarray:
    """What the run added to a weight of MiniLM, shape (out, in)."""
    with (
        safe_open(folder / "adapter_model.safetensors", "np") as after,
        safe_open(asset_path("minilm") / "model.safetensors", "np") as before,
    ):
        return after.get_tensor(f"base_model.model.bert.{name}").astype(float) - before.get_tensor(name)


def without_the_strongest(folder: Path) -> dict[str, list[int]]:
    """Right answers when every matrix keeps all pieces but the r strongest: training undone, cut to rank r."""
    whole = specimen_of("full", folder, "rt")
    states = ({part.name: getattr(part, when) for part in whole.parts} for when in ("after", "before"))
    undone = replace(specimen("undone", *states), head=whole.head)
    scope = Microscope([undone], "rt", count=500)
    labels = scope.views.sentences.labels
    return {"ranks": [*RANKS], "right": [int((scope.look("undone", r).answers == labels).sum()) for r in RANKS]}


def main(folder: Path) -> None:
    """Compare the run with the reference, then write the file."""
    reference = reference_microscope()
    for name, values in reference["spectra"]["full"].items():
        found = spectrum(update_of(folder, name.removeprefix("bert.") + ".weight"))
        if not np.allclose(found[:200], values[:200], rtol=1e-3):
            raise BadValue(f"{folder} is another run than the reference: the singular values of {name} differ")
    cuts = views_from(reference["views"]).cuts()
    made = reference["environment"]
    about = (
        f"MiniLM on film reviews, 400 steps of 16, full fine-tuning at 1e-4, LoRA of rank 8 on q and v at 2e-3; "
        f"one run each, {made['date']}, {made['device']}, {made['dtype']}. Every matrix of the model is cut to rank r; "
        f"{cuts['n']} validation sentences."
    )
    updates = {source: cuts["updates"][name] | {"label": label} for source, (name, label) in NAMES.items()}
    cuts |= {"about": about, "updates": updates}
    rest = without_the_strongest(folder)
    content = {"matrix": packed(update_of(folder, MATRIX)), "cuts": cuts, "rest": rest}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(shipped("data/results/microscope") / Path(CUTS).name, text.encode())
    print(f"{CUTS}: {len(text):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
