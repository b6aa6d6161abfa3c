"""How fast and how large, as ratios against PEFT in one run. Not tests: `make bench` runs them, pytest does not."""

import os

# Threads that wait for each other by spinning make every step many times slower as soon as the machine does anything
# else. Read when torch is first imported, so it stands here; ours and theirs are under it alike.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
