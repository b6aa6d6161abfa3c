"""`python -m tests.fuzz --minutes 30 [--seed 0] [--case N]`: progress on stderr, the summary as JSON on stdout."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path

import torch

from tests.fuzz.run import Fuzzer, fuzz

LIMIT = 6 * 2**30


def main() -> int:
    """Fuzz; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, default=None, help="only this one")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))  # what goes wrong must not take the machine with it
    with tempfile.TemporaryDirectory() as folder:
        if chosen.case is not None:
            print(Fuzzer(Path(folder), chosen.seed).case(chosen.case))
            return 0
        summary = fuzz(Path(folder), chosen.seed, seconds=60 * chosen.minutes, say=_say)
    print(json.dumps(summary, indent=1))
    return 0 if summary["passed"] else 1


def _say(summary: dict) -> None:
    short = {name: value for name, value in summary.items() if name not in ("ways", "failures")}
    print(json.dumps(short), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
