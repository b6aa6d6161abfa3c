"""`lora-lab wheelhouse`: one folder to install from without a network, for a stick or a shared drive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lora_lab.cli.shared import JSON, say, tell
from lora_lab.errors import Failed


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
    from lora_course.classroom.wheelhouse import contents, gather, targets

    folder = Path(out).expanduser().absolute()
    if check:
        manifest = contents.manifest_of(folder)
        if wrong := contents.problems(folder):
            raise Failed(f"{len(wrong)} files of {folder} are not as they were: {wrong[0]}; copy it, or make it, again")
    else:
        where = platforms or (targets.this_platform() or "",)
        wanted = [targets.Target(one, python) for one in where for python in pythons or (targets.this_python(),)]
        manifest = gather.gather(folder, wanted, gather.Wishes(**wishes), say)
    tell(manifest if as_json else describe(folder, manifest))


def describe(folder: Path, manifest: dict[str, Any]) -> str:
    """What a wheelhouse holds, and what to do with it."""
    from lora_course.classroom.wheelhouse.targets import named

    sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
    lines = [
        f"{named(name).words}: {len(files)} wheels, {sum(sizes[file] for file in files) / 1e6:,.0f} MB"
        for name, files in manifest["targets"].items()
    ]
    assets = [size for name, size in sizes.items() if name.startswith("assets/")]
    lines += [f"models and data: {len(assets)} packages, {sum(assets) / 1e6:,.0f} MB"]
    lines += [f"in all {len(sizes)} files, {sum(sizes.values()) / 1e6:,.0f} MB, in {folder}"]
    return "\n".join([*lines, "copy the folder to a stick or a shared drive; HOWTO.txt in it says how to install"])
