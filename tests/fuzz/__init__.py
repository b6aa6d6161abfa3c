"""Adapter files made wrong at random, each loaded under watch. `python -m tests.fuzz --minutes 30`."""
