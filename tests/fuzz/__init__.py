"""Adapter files damaged at random, each loaded under watch: `python -m tests.fuzz --minutes 30 --seed 0`."""
