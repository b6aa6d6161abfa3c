"""`python -m lora_lab`: the lab's own commands; `lora-lab` and `python -m lora_course` have a course's, too."""

from lora_lab.cli import main

main()
