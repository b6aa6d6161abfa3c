"""All benchmarks, one after the other, as Markdown on stdout: `make bench`, or `python -m benchmarks --quick`."""

from __future__ import annotations

import argparse
import datetime
import sys
from importlib.metadata import version

import torch

from benchmarks import bank, early_exit, estimators, merged, panels, startup, step, sweep, train
from lora_lab.training.device import describe

PACKAGES = ("lora-lab", "torch", "transformers", "peft", "accelerate")


def main() -> None:
    """Print each report as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs, seeds and steps")
    quick = parser.parse_args().quick
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(
        f"# Benchmarks{' (quick)' if quick else ''}\n\n{datetime.date.today()}; {describe(kind)}; {versions}",
        end="\n\n",
    )
    for part in (startup, panels, step, merged, bank, train, sweep, early_exit, estimators):
        print(f"{part.__name__.rpartition('.')[2]} ...", file=sys.stderr)
        print(part.report(quick), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
