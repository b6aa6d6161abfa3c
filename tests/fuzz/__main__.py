"""Fuzz until the time is up, with progress on stderr and a summary as JSON on stdout; exit 1 if anything failed."""

import argparse
import faulthandler
import json
import resource
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import torch

from tests.fuzz.run import READ, Fuzzer

parser = argparse.ArgumentParser()
parser.add_argument("--minutes", type=float, default=30)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--kind", choices=["adapters", *READ], default="adapters")
parser.add_argument("--case", type=int, default=None, help="read only this case")
args = parser.parse_args()
torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_DATA, (6 * 2**30,) * 2)  # to protect the machine
with tempfile.TemporaryDirectory() as folder:
    fuzzer, end = Fuzzer(Path(folder), args.seed, args.kind), time.monotonic() + 60 * args.minutes
    for number in count() if args.case is None else [args.case]:
        if time.monotonic() > end:
            break
        faulthandler.dump_traceback_later(300, exit=True)  # seconds of wall time for a case
        outcome = fuzzer.case(number)
        if number % 500 == 0 or args.case is not None:
            print(number, outcome, dict(fuzzer.results), file=sys.stderr, flush=True)
    faulthandler.cancel_dump_traceback_later()
print(json.dumps({"seed": args.seed, **fuzzer.results, "failures": fuzzer.failures[:50]}, indent=1))
sys.exit(bool(fuzzer.failures))
