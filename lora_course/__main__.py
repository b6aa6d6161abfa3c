"""`python -m lora_course`: `lora-lab` with all its commands, for machines where scripts are not on the path."""

from lora_course.cli import main

main()
