"""The command line `lora-lab`: the lab's commands and the course's.

`python -m lora_lab` has only the lab's, `python -m lora_course` has all of them.
"""

from __future__ import annotations

from lora_course.cli.claims import claims
from lora_course.cli.class_ import class_
from lora_course.cli.doctor import doctor
from lora_course.cli.grade import grade
from lora_course.cli.predictions import predictions
from lora_course.cli.reproduce import reproduce
from lora_course.cli.show import show
from lora_course.cli.wheelhouse import wheelhouse
from lora_lab.cli import commands, main

__all__ = ["commands", "main"]

for command in (claims, class_, doctor, grade, predictions, reproduce, show, wheelhouse):
    commands.add_command(command)
