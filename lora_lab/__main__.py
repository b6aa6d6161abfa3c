"""`python -m lora_lab`: the lab's own commands; the script `lora-lab` has those of a course, too."""

from lora_lab.cli import main

main()
