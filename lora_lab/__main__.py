"""Run the lab's commands with `python -m lora_lab`. The `lora-lab` script also has the course's commands."""

from lora_lab.cli import main

main()
