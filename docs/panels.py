"""Draw the pictures for docs/panels.md in chromium, from panels without a kernel: `python docs/panels.py`."""

from __future__ import annotations

from pathlib import Path

from lora_lab import LoRAPanel
from lora_lab.widgets.still import still

PICTURES = Path(__file__).with_name("panels")


def main() -> None:
    """Draw all pictures."""
    pictures = {
        "size": (LoRAPanel("size", d=4096, rank=64), {}),
        "model": (LoRAPanel("model", model="llama-3-8b", rank=64), {}),
        "steps_dark": (LoRAPanel("steps"), {"dark": True}),
        "narrow": (LoRAPanel("merge"), {"width": 360}),
    }
    PICTURES.mkdir(exist_ok=True)
    for name, (panel, options) in pictures.items():
        picture = still(panel.snapshot(), **options)
        (PICTURES / f"{name}.png").write_bytes(picture)
        print(f"{name}.png", len(picture))


if __name__ == "__main__":
    main()
