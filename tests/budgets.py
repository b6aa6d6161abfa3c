"""Lines of code in each room against its budget in `budgets.toml`: `python -m tests.budgets`, which begins `make test`.

Exit 1 where a room is above its budget, or a file is in no room.
"""

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNTED = ("lora_*/**/*.py", "tests/**/*.py", "benchmarks/*.py", "site/*.py", "lora_*/**/*.js")


def sizes(root: Path, rooms: Mapping[str, int]) -> dict[str, int]:
    """The lines of each room, by its pattern; what no pattern holds has its path as a room of its own."""
    left = {path: _lines(path) for pattern in COUNTED for path in root.glob(pattern)}
    found = {room: sum(left.pop(path, 0) for path in list(root.glob(room))) for room in rooms}
    return found | {path.relative_to(root).as_posix(): lines for path, lines in left.items() if lines}


def report(root: Path) -> tuple[str, list[str]]:
    """The table of lines against budgets, and what is wrong in sentences."""
    rooms: dict[str, int] = tomllib.loads((root / "budgets.toml").read_text(encoding="utf-8"))
    found = sizes(root, rooms)
    table = [f"{'room':34} {'lines':>7} {'budget':>7}"]
    table += [f"{room:34} {lines:>7,} {rooms.get(room, 0):>7,}" for room, lines in found.items()]
    for top in dict.fromkeys(room.split("/")[0] for room in found if room.endswith(".py")):
        own = [room for room in found if room.startswith(f"{top}/") and room.endswith(".py")]
        table.append(f"{top:34} {sum(found[r] for r in own):>7,} {sum(rooms.get(r, 0) for r in own):>7,}")
    wrong = [
        f"{room} has {lines:,} lines and a budget of {rooms[room]:,}: shorten it"
        if room in rooms
        else f"{room} is in no room of budgets.toml"
        for room, lines in found.items()
        if lines > rooms.get(room, 0)
    ]
    return "\n".join(table), wrong


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


if __name__ == "__main__":
    table, wrong = report(ROOT)
    print(table)
    sys.exit("\n".join(wrong) or 0)
