"""Run the lab's commands with `python -m lora_lab`; the `lora-lab` script also has the course's commands."""

from lora_lab.cli import main

main()
