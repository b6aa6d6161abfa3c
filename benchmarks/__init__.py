"""Benchmarks of speed and memory against PEFT and other tools. `make bench` runs them; pytest does not."""

import os

# Spinning threads make every step many times slower if another program runs, too. OpenMP reads these variables when
# torch is first imported, so this file sets them, for both sides of each comparison.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
