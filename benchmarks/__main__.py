"""The benchmarks, one after the other, as Markdown on stdout: `make bench`, or `python -m benchmarks --quick step`."""

from __future__ import annotations

import argparse
import datetime
import sys
from importlib.metadata import version

import torch

from benchmarks import bank, early_exit, estimators, merged, panels, startup, step, sweep, train
from lora_lab.training.device import describe

PARTS = {
    part.__name__.rpartition(".")[2]: part
    for part in (startup, panels, step, merged, bank, train, sweep, early_exit, estimators)
}
PACKAGES = ("lora-lab", "torch", "transformers", "peft", "accelerate")


def main() -> None:
    """Print each report as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs, seeds and steps")
    parser.add_argument("parts", nargs="*", help=f"all by default: {', '.join(PARTS)}")
    given = parser.parse_args()
    if unknown := {*given.parts} - {*PARTS}:
        parser.error(f"no part is called {', '.join(unknown)}")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(
        f"# Benchmarks{' (quick)' if given.quick else ''}\n\n{datetime.date.today()}; {describe(kind)}; {versions}",
        end="\n\n",
    )
    for name in given.parts or PARTS:
        print(f"{name} ...", file=sys.stderr)
        print(PARTS[name].report(given.quick), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
