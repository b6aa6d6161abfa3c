"""Files damaged at random, each read under watch: `python -m tests.fuzz --minutes 30 --seed 0 --kind texts`."""
