"""How long a slider of the savings panel waits for its picture: moving it to the PNG that goes to the browser.

The rank panel is drawn by the browser itself; its times are printed by tests/e2e/test_rank_panel.py.
"""

from __future__ import annotations

import argparse
from statistics import median

from lora_lab.widgets.savings_panel import SavingsPanel
from tests.benchmarks.measure import goal, seconds, table

MODELS = ("minilm", "gpt2", "llama-3-8b", "deepseek-v3", "llama-3.1-405b")


def moves(quick: bool) -> dict[str, list[float]]:
    """Seconds of each move of a control, by the control."""
    panel = SavingsPanel()
    rounds = 1 if quick else 4
    stops = {panel.rank: [2**n for n in range(11)] * rounds, panel.d: [64, 512, 4096, 16384] * 2 * rounds}
    times = {w.description: [seconds(lambda w=w, v=v: setattr(w, "value", v)) for v in vs] for w, vs in stops.items()}
    panel.rank.value = 8
    for model in MODELS:  # the first of each reads its config
        panel.model.value = model
    times["model"] = [seconds(lambda m=m: setattr(panel.model, "value", m)) for m in MODELS * rounds]
    return times


def report(quick: bool) -> str:
    """The table and the verdict, in Markdown."""
    times = moves(quick)
    rows = [[name, f"{1000 * median(taken):.0f}", f"{1000 * max(taken):.0f}"] for name, taken in times.items()]
    verdict = goal("savings panel, rank slider to picture, median seconds", median(times["rank r"]), 0.1)
    return "\n".join(["## Panels\n", table(["control moved", "median ms", "most ms"], rows) + "\n", verdict])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each stop once")
    print(report(parser.parse_args().quick))
