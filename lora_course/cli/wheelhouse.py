"""`lora-lab wheelhouse`: one folder to install from without a network, for a stick or a shared drive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lora_lab.cli.shared import JSON, say, tell


@click.command()
@click.option("--out", default="wheelhouse", show_default=True, help="The folder; a call that was stopped goes on.")
@click.option("--platform", "platforms", multiple=True, help="linux, windows or macos-arm64; this one when left out.")
@click.option("--python", "pythons", multiple=True, help="Such as 3.11; this one when left out. May be repeated.")
@click.option("--torch-index", default=None, help="Where torch for the CPU is, as PyTorch's page Get started says.")
@click.option("--cuda", is_flag=True, help="Take the CUDA packages that torch for Linux brings, some 3 GB.")
@click.option("--wheel", type=click.Path(dir_okay=False, path_type=Path), default=None, help="The lab's own wheel.")
@click.option("--tweets", is_flag=True, help="Also the tweets, which hold abuse.")
@click.option("--upgrade", is_flag=True, help="Choose the newest versions anew.")
@click.option("--check", is_flag=True, help="Read every byte that is there and compare; fetch nothing.")
@JSON
def wheelhouse(
    out: str, platforms: tuple[str, ...], pythons: tuple[str, ...], check: bool, as_json: bool, **wishes: Any
) -> None:
    """Gather all that an installation needs, for chosen machines, in one folder."""
    from lora_course.classroom import wheelhouse as house

    folder, (here, python) = Path(out).expanduser().absolute(), house.here()
    if check:
        manifest = house.check(folder)
    else:
        wanted = [house.Target(one, version) for one in platforms or (here,) for version in pythons or (python,)]
        manifest = house.gather(folder, wanted, say, **wishes)
    sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
    parts = {f"{house.named(name)}: {{}} wheels": files for name, files in manifest["targets"].items()}
    parts["models and data: {} packages"] = [name for name in sizes if name.startswith("assets/")]
    parts[f"in all {{}} files, in {folder}"] = list(sizes)
    lines = [f"{words.format(len(of))}, {sum(sizes[one] for one in of) / 1e6:,.0f} MB" for words, of in parts.items()]
    lines += ["copy the folder to a stick or a shared drive; HOWTO.txt in it says how to install"]
    tell(manifest if as_json else "\n".join(lines))
