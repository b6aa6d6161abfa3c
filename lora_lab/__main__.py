"""Run the lab's commands with `python -m lora_lab`; the script `lora-lab` also has those of the course."""

from lora_lab.cli import main

main()
