"""Find a free port, using only the standard library because the installer needs it too."""

from __future__ import annotations

import socket

from lora_lab.errors import BadValue

PORTS = 50  # how many to try, starting with the requested one


def free_port(first: int) -> int:
    """Return `first` or the next free port, or any free port for 0. Raises: BadValue if the first PORTS are taken."""
    for port in [0] if first == 0 else range(first, min(first + PORTS, 65536)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BadValue(f"ports {first} to {first + PORTS - 1} are all in use; choose another with --port")
