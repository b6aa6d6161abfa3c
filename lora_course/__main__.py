"""`python -m lora_course`: `lora-lab` with all its commands, for machines where scripts are not on the PATH."""

from lora_course.cli import main

main()
