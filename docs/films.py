"""Write the films of a training step that ship with the memory panel: `python docs/films.py [MODEL ...]`.

A film is valid for every batch size, length and rank, so each method needs one with checkpointing and one without.
Each model takes a minute or two.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from lora_lab.accounting.film import film
from lora_lab.accounting.fit import fit
from lora_lab.accounting.memory import compact, regime_of
from lora_lab.accounting.models import config_of
from lora_lab.files import read_json, write_atomically
from lora_lab.widgets.memory_panel import FILMS, METHODS, SHIPPED, described, setup_of


def film_of(model: str, name: str, checkpointing: bool) -> dict[str, object]:
    """Return the film of a zoo model and a method."""
    config, method, setup = config_of(model), METHODS[name], setup_of(model, name, checkpointing=checkpointing)
    regime = regime_of(config, method, setup)
    return described(name, setup) | film(fit(config, method, setup, regime, every_layer=True))


def main(models: list[str]) -> None:
    """Update the films of these models, by default of all that ship."""
    films = read_json(FILMS) if FILMS.exists() else {}
    with ProcessPoolExecutor(2) as pool:
        for model in models or SHIPPED:
            names, checkpointing = zip(*product(METHODS, (False, True)), strict=True)
            films[model] = list(pool.map(film_of, [model] * len(names), names, checkpointing))
            lines = [f"{json.dumps(name)}: {compact(films[name])}" for name in SHIPPED if name in films]
            write_atomically(FILMS, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
            print(f"{model}: {len(films[model])} films, {len(compact(films[model])):,} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
