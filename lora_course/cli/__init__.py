"""The command line `lora-lab`: the lab's commands and the course's.

`python -m lora_lab` has only the lab's commands; `python -m lora_course` has all of them.
"""

from lora_course.cli.claims import claims
from lora_course.cli.classroom import class_, doctor, grade, predictions, show, wheelhouse
from lora_course.cli.reproduce import reproduce
from lora_lab.cli import commands, main

__all__ = ["commands", "main"]

for command in (claims, class_, doctor, grade, predictions, reproduce, show, wheelhouse):
    commands.add_command(command)
