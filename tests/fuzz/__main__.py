"""Fuzz until the time is up: progress on stderr, the summary as JSON on stdout; exit code 1 if anything was found."""

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

HANGS = 300  # seconds of wall time, after which the process says where it stands and ends
LIMIT = 6 * 2**30  # bytes: what goes wrong must not take the machine with it


def main() -> int:
    """Fuzz until the time is up; 1 if anything was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=["adapters", *READ], default="adapters")
    parser.add_argument("--case", type=int, default=None, help="only this one")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    with tempfile.TemporaryDirectory() as folder:
        fuzzer, number = Fuzzer(Path(folder), chosen.seed, chosen.kind), 0
        if chosen.case is not None:
            print(fuzzer.case(chosen.case))
            return 0
        while time.monotonic() - fuzzer.begun < 60 * chosen.minutes:
            faulthandler.dump_traceback_later(HANGS, exit=True)
            fuzzer.case(number)
            number += 1
            if number % 500 == 0:
                print(json.dumps(fuzzer.summary()), file=sys.stderr, flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(json.dumps(fuzzer.summary() | {"ways": fuzzer.ways, "failures": fuzzer.failures[:50]}, indent=1))
    return 1 if fuzzer.failures else 0


sys.exit(main())
