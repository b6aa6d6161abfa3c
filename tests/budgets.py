"""Compare lines of code with `budgets.toml`: `python -m tests.budgets`, the first step of `make test`.

The exit code is 1 if a room exceeds its budget or a file is in no room.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNTED = ("lora_*/**/*.py", "tests/**/*.py", "benchmarks/*.py", "site/*.py", "lora_*/**/*.js", "site/*.js")


def report(root: Path) -> tuple[str, list[str]]:
    """Return a table of the rooms, and what is wrong; a file that no pattern matches is a room of its own."""
    budgets: dict[str, int] = tomllib.loads((root / "budgets.toml").read_text(encoding="utf-8"))
    remaining = {path: path.read_bytes().count(b"\n") for pattern in COUNTED for path in root.glob(pattern)}
    lines = {room: sum(remaining.pop(path, 0) for path in list(root.glob(room))) for room in budgets}
    lines |= {path.relative_to(root).as_posix(): n for path, n in remaining.items() if n}
    table = [f"{'room':34} {'lines':>7} {'budget':>7}"]
    table += [f"{room:34} {n:>7,} {budgets.get(room, 0):>7,}" for room, n in lines.items()]
    for top in dict.fromkeys(room.split("/")[0] for room in lines if room.endswith(".py")):
        own = [room for room in lines if room.startswith(f"{top}/") and room.endswith(".py")]
        table.append(f"{top:34} {sum(lines[g] for g in own):>7,} {sum(budgets.get(g, 0) for g in own):>7,}")
    problems = [
        f"{room} has {n:,} lines and a budget of {budgets[room]:,}: shorten it"
        if room in budgets
        else f"{room} is in no room of budgets.toml"
        for room, n in lines.items()
        if n > budgets.get(room, 0)
    ]
    return "\n".join(table), problems


if __name__ == "__main__":
    table, problems = report(ROOT)
    print(table)
    sys.exit("\n".join(problems) or 0)
