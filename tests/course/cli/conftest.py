"""The command line, as a fixture."""

from tests.cli.conftest import lora_lab  # noqa: F401
