"""A fuzzer that reads randomly damaged files: `python -m tests.fuzz --minutes 30 --seed 0 --kind texts`."""
