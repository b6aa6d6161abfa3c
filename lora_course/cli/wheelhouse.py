"""`lora-lab wheelhouse`: build a folder for offline installs, such as on a USB stick or a shared drive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lora_lab.cli.shared import JSON, say, tell


@click.command()
@click.option("--out", default="wheelhouse", show_default=True, help="The folder; an interrupted call resumes.")
@click.option("--platform", "platforms", multiple=True, help="linux, windows or macos-arm64; default: this machine's.")
@click.option("--python", "pythons", multiple=True, help="Such as 3.11; default: this machine's.")
@click.option("--torch-index", default=None, help="The URL of torch's CPU wheels, from PyTorch's Get Started page.")
@click.option("--cuda", is_flag=True, help="Include the CUDA packages of torch for Linux, about 3 GB.")
@click.option("--wheel", type=click.Path(dir_okay=False, path_type=Path), default=None, help="The lab's own wheel.")
@click.option("--tweets", is_flag=True, help="Include the tweets, which contain abuse.")
@click.option("--upgrade", is_flag=True, help="Choose the newest versions again.")
@click.option("--check", is_flag=True, help="Only verify the folder, byte by byte.")
@JSON
def wheelhouse(
    out: str, platforms: tuple[str, ...], pythons: tuple[str, ...], check: bool, as_json: bool, **options: Any
) -> None:
    """Gather everything that the chosen machines need for an installation in one folder."""
    from lora_course.classroom import wheelhouse as house

    folder, (here, python) = Path(out).expanduser().absolute(), house.here()
    if check:
        manifest = house.check(folder)
    else:
        targets = [house.Target(name, version) for name in platforms or (here,) for version in pythons or (python,)]
        manifest = house.gather(folder, targets, say, **options)
    sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
    parts = {f"{house.named(name)}: {{}} wheels": files for name, files in manifest["targets"].items()}
    parts["models and data: {} packages"] = [name for name in sizes if name.startswith("assets/")]
    parts[f"total: {{}} files, in {folder}"] = list(sizes)
    lines = [f"{text.format(len(p))}, {sum(sizes[name] for name in p) / 1e6:,.0f} MB" for text, p in parts.items()]
    lines += ["copy the folder to a USB stick or a shared drive; its HOWTO.txt says how to install"]
    tell(manifest if as_json else "\n".join(lines))
