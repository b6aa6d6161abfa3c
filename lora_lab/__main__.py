"""`python -m lora_lab`, for machines where scripts are not on the path."""

from lora_lab.cli import main

main()
