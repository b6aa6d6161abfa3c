"""Which port a server of the lab listens on. The standard library alone: the installer looks at ports, too."""

from __future__ import annotations

import socket

from lora_lab.errors import BadValue

PORTS = 50  # that are tried, from the one that was asked for on


def free_port(first: int) -> int:
    """`first`, or the next port that is free; any free one for 0. Raises: BadValue where PORTS are taken."""
    for port in [0] if first == 0 else range(first, min(first + PORTS, 65536)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BadValue(f"ports {first} to {first + PORTS - 1} are all taken; give another with --port")
