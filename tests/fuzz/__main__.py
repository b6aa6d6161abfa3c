"""Fuzz until the time is up, with progress on stderr and a summary as JSON on stdout; exit 1 if anything failed."""

import argparse
import faulthandler
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.fuzz.kinds import READ
from tests.fuzz.run import Fuzzer

TIMEOUT = 300  # seconds of wall time for a case, after which the process prints a traceback and exits
LIMIT = 6 * 2**30  # bytes, to protect the machine


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=["adapters", *READ], default="adapters")
    parser.add_argument("--case", type=int, default=None, help="read only this case")
    args = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    with tempfile.TemporaryDirectory() as folder:
        fuzzer, number = Fuzzer(Path(folder), args.seed, args.kind), 0
        if args.case is not None:
            print(fuzzer.case(args.case))
            return 0
        while time.monotonic() - fuzzer.begun < 60 * args.minutes:
            faulthandler.dump_traceback_later(TIMEOUT, exit=True)
            fuzzer.case(number)
            number += 1
            if number % 500 == 0:
                print(json.dumps(fuzzer.summary()), file=sys.stderr, flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(json.dumps(fuzzer.summary() | {"mutations": fuzzer.mutations, "failures": fuzzer.failures[:50]}, indent=1))
    return 1 if fuzzer.failures else 0


sys.exit(main())
