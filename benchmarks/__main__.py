"""Run the benchmarks and print a Markdown report: `make bench`, or `python -m benchmarks --quick step`."""

import argparse
import datetime
import sys
from importlib.metadata import version

import torch

from benchmarks import bank, early_exit, estimators, panels, startup, step, sweep, train
from lora_lab.training.device import describe

MODULES = (startup, panels, step, bank, train, sweep, early_exit, estimators)
BENCHMARKS = {module.__name__.rpartition(".")[2]: module for module in MODULES}
PACKAGES = ("lora-lab", "torch", "transformers", "peft", "accelerate")


def main() -> None:
    """Print the report, one paragraph at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="use fewer pairs, seeds and steps")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(BENCHMARKS)}")
    args = parser.parse_args()
    if unknown := {*args.names} - {*BENCHMARKS}:
        parser.error(f"unknown benchmark: {', '.join(unknown)}")
    hardware = describe("cuda" if torch.cuda.is_available() else "cpu")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"# Benchmarks{' (quick)' if args.quick else ''}\n\n{datetime.date.today()}; {hardware}; {versions}\n")
    for name in args.names or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr)
        for paragraph in BENCHMARKS[name].report(args.quick):
            print(paragraph, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
