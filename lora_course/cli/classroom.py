"""The commands for a class: `doctor --preflight`, `wheelhouse`, `show`, `grade`, `predictions` and `class`."""

from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import IO, Any

import click

from lora_course.receipts import Receipt, coverage, key_of, read
from lora_lab.cli import doctor as look
from lora_lab.cli.shared import JSON, aligned, say, tell
from lora_lab.errors import BadValue, Failed, NotFound
from lora_lab.files import check_writable, write_atomically

DIRECTORY, FILE = click.Path(file_okay=False), click.Path(dir_okay=False)


@click.command()
@click.option("--preflight", is_flag=True, help="Check whether this machine is ready for a course.")
@click.option("--out", type=FILE, help="With --preflight: file for the results, which you send to your teacher.")
@click.option("--dir", "folder", type=DIRECTORY, help="With --preflight: folder for the lab; default: the current one.")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="With --preflight: the port; default: 8888.")
@click.option("--collect", default=None, help="Print a table of all --preflight files in this folder.")
@JSON
def doctor(preflight: bool, collect: str | None, as_json: bool, **options: Any) -> None:
    """Show the hardware and software of this machine, and the settings that the lab will use."""
    from lora_course.classroom import preflight as course

    if (preflight and collect) or (any(options.values()) and not preflight):
        raise BadValue("use --out, --dir and --port only with --preflight, and --collect only without it")
    if preflight:
        findings = course.preflight(Path(options["folder"] or "").expanduser().absolute(), options["port"] or 8888, say)
        if not as_json:
            tell(course.words(findings))  # print first: writing the file may fail
        letter = course.write_letter(findings, path := Path(options["out"] or course.FILE).expanduser().absolute())
        tell(letter if as_json else f"send this file to your teacher (it contains no names): {path}")
        if count := sum(not finding.green for finding in findings):
            raise Failed(f"{count} of {len(findings)} checks are red: follow the arrows above, then run this again")
    elif collect:
        letters = course.letters_in(Path(collect))
        ready = sum(bool(letter["green"]) for letter in letters.values())
        lines = aligned([[name, course.summary(letter)] for name, letter in letters.items()])
        tell({"files": letters} if as_json else "\n".join([*lines, f"{ready} of {len(letters)} are ready"]))
    else:
        click.get_current_context().invoke(look, as_json=as_json)


@click.command()
@click.option("--out", default="wheelhouse", show_default=True, help="Output folder; run the command again to resume.")
@click.option("--platform", "platforms", multiple=True, help="linux, windows or macos-arm64; default: this machine's.")
@click.option("--python", "pythons", multiple=True, help="Python version, such as 3.11; default: this machine's.")
@click.option("--torch-index", default=None, help="URL of torch's CPU wheels, from PyTorch's Get Started page.")
@click.option("--cuda", is_flag=True, help="Include torch's CUDA packages for Linux, about 3 GB.")
@click.option("--wheel", type=click.Path(dir_okay=False, path_type=Path), default=None, help="The lab's own wheel.")
@click.option("--tweets", is_flag=True, help="Include the tweets, which contain abusive language.")
@click.option("--upgrade", is_flag=True, help="Use the newest versions instead of those from the last run.")
@click.option("--check", is_flag=True, help="Only verify the folder, byte by byte.")
@JSON
def wheelhouse(
    out: str, platforms: tuple[str, ...], pythons: tuple[str, ...], check: bool, as_json: bool, **options: Any
) -> None:
    """Gather in one folder everything that you need to install the lab without a network."""
    from lora_course.classroom import wheelhouse as house

    folder, (here, python) = Path(out).expanduser().absolute(), house.here()
    if check:
        manifest = house.check(folder)
    else:
        targets = [house.Target(name, version) for name in platforms or (here,) for version in pythons or (python,)]
        manifest = house.gather(folder, targets, say, **options)
    sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
    parts = [(str(house.Target(*name.rsplit("-", 1))), "wheels", files) for name, files in manifest["targets"].items()]
    parts.append(("models and data", "packages", [name for name in sizes if name.startswith("assets/")]))
    parts.append(("total", f"files, in {folder}", list(sizes)))
    lines = [f"{what}: {len(p)} {kind}, {sum(sizes[name] for name in p) / 1e6:,.0f} MB" for what, kind, p in parts]
    lines += ["copy the folder to a USB stick or a shared drive; its HOWTO.txt says how to install"]
    tell(manifest if as_json else "\n".join(lines))


@click.command()
@click.option("--out", type=DIRECTORY, default="runs", show_default=True, help="Store for the training panel's runs.")
@click.option("--port", type=click.IntRange(0, 65535), default=8866, help="First port to try; 0 for any free port.")
@click.option("--no-browser", is_flag=True, help="Only start the server and print its address.")
def show(out: str, port: int, no_browser: bool) -> None:
    """Show the three main panels without code, for a projector (this needs the `show` extra)."""
    from lora_course.classroom import projector

    projector.show(out, port=port, browser=not no_browser, say=say)


@click.command()
@click.argument("path", metavar="NOTEBOOK|FOLDER")
@click.option("--seconds", type=click.FloatRange(min=1), default=300, show_default=True, help="Time limit in seconds.")
@click.option("--memory", type=click.FloatRange(min=0.25), default=4, show_default=True, help="Memory limit in GiB.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Notebooks to grade in parallel.")
@click.option("--full", is_flag=True, help="Train for all steps instead of only a few (FAST=1).")
@click.option("--lesson", default=None, help="The notebook that you handed out, if it isn't one of the lab's lessons.")
@click.option("--csv", "table", default=None, help="Also write a table with one line per notebook to this file.")
@JSON
def grade(
    path: str, seconds: float, memory: float, jobs: int, full: bool, lesson: str | None, table: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run one notebook, or all notebooks in a folder, in new processes, and check the answers.

    The grader protects you from accidents, but it is a sandbox only on Linux with bubblewrap (see docs/teaching.md).
    """
    from lora_course.classroom import grading

    def write(rows: list[dict[str, Any]]) -> None:
        if table:
            write_atomically(Path(table), grading.table(rows).encode("utf-8-sig"))  # the byte-order mark is for Excel

    if table:
        check_writable(Path(table))  # fail now, not after grading a class
    rows: list[dict[str, Any]] = []
    known, limits = [grading.Lesson(Path(lesson))] if lesson else None, grading.Limits(seconds, memory, full)
    try:
        with closing(grading.grade(path, limits=limits, jobs=jobs, known=known)) as graded:
            for row in graded:
                rows = sorted([*rows, row], key=lambda row: Path(row["file"]))
                with suppress(BadValue):  # Excel may have the file open; only the last write raises an error
                    write(rows)
                say(grading.in_words(row))
    except KeyboardInterrupt:
        if as_json:
            tell({"notebooks": rows})
        raise
    if not all(row["walls"].get("files", True) for row in rows):
        say("not sandboxed: a sandbox needs Linux with bubblewrap; see Grading in docs/teaching.md")
    right, total = sum(row["right"] for row in rows), sum(row["of"] for row in rows)
    words = f"{len(rows)} notebook{'s' * (len(rows) != 1)}: {right} of {total} checks right"
    tell({"notebooks": rows} if as_json else words)
    write(rows)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False), default=".")
@click.option("--csv", "table", default=None, help="Also write a table with one line per prediction to this file.")
@JSON
def predictions(folder: str, table: str | None, as_json: bool) -> None:
    """Read all predictions.jsonl files in FOLDER and its subfolders, and list the predictions."""
    from lora_course import predictions as logs

    rows = logs.read(Path(folder))
    if table:
        lines = [[row[name] for name in logs.COLUMNS] for row in rows]
        write_atomically(Path(table), logs.as_csv(logs.COLUMNS, lines).encode("utf-8-sig"))
    tell({"predictions": rows} if as_json else logs.summary(rows))


@click.command("class")
@click.argument("file", type=click.File("rb"))
@JSON
def class_(file: IO[bytes], as_json: bool) -> None:
    """Summarize the receipts (the lines with LL1) in FILE, such as a saved chat; use - for standard input.

    The summary lists the students, the exercises and predictions that were missed most often, and all results.
    """
    content = file.read().replace(b"\0", b"")  # receipts are ASCII; PowerShell's > writes them as UTF-16
    receipts, damaged = read(content.decode("utf-8", errors="replace"))
    for line in damaged:
        say(line)
    if not receipts:
        raise NotFound(f"{file.name} has no readable receipt: paste the lines that lesson.receipt() prints")
    result = summary(receipts)
    tell({**result, "damaged": damaged} if as_json else _in_words(receipts, result))


def summary(receipts: list[Receipt]) -> dict[str, Any]:
    """Summarize exercises and first-attempt predictions (most missed first), and results; `std` needs two values."""
    guesses = [(r.lesson, guess) for r in receipts for guess in r.ranges]
    checks = _grouped((r.lesson, name, check) for r in receipts for name, check in r.checks.items())
    results = _grouped((r.lesson, name, value) for r in receipts for name, value in r.notes.items())
    missed = [
        {"lesson": lesson, "check": name, "missed": sum(not check.passed for check in group), "of": len(group),
         "tries": mean(check.tries for check in group)} for (lesson, name), group in checks.items()
    ]  # fmt: skip
    ranges = _grouped((n, g.what, g.held) for n, g in guesses if g.attempt == 1 and g.held is not None)
    held = [{"lesson": lesson, "what": what, "held": sum(g), "of": len(g)} for (lesson, what), g in ranges.items()]
    return {
        "receipts": [asdict(receipt) for receipt in receipts],
        "checks": sorted(missed, key=lambda row: (-row["missed"] / row["of"], -row["tries"])),
        "predictions": sorted(held, key=lambda row: row["held"] / row["of"]),
        "results": [
            {"lesson": lesson, "name": name, "values": sorted(group), "mean": mean(group),
             "std": stdev(group) if len(group) > 1 else None} for (lesson, name), group in sorted(results.items())
        ],
        "calibration": coverage(guess for _, guess in guesses),
    }  # fmt: skip


def _grouped(rows: Iterable[tuple[str, str, Any]]) -> dict[tuple[str, str], list[Any]]:
    groups: dict[tuple[str, str], list[Any]] = {}
    for lesson, name, value in rows:
        groups.setdefault((lesson, name), []).append(value)
    return groups


def _in_words(receipts: list[Receipt], summary: dict[str, Any]) -> str:
    lessons = sorted({receipt.lesson for receipt in receipts})
    students: dict[tuple[str, int], dict[str, str]] = {}
    for number, receipt in enumerate(receipts, 1):
        name = receipt.student or f"(no name, {number})"
        row = students.setdefault((key_of(receipt.student), 0 if receipt.student else number), {"": name})
        passed = sum(check.passed for check in receipt.checks.values())
        row[receipt.lesson] = f"{passed}/{max(len(r.checks) for r in receipts if r.lesson == receipt.lesson)}"
    tables = {
        "Exercises passed": [["student", *lessons]]
        + [[row.get(column, "-") for column in ("", *lessons)] for _, row in sorted(students.items())],
        "Most missed": [
            [row["lesson"], row["check"], f"{row['missed']} of {row['of']} missed, {row['tries']:.1f} tries"]
            for row in summary["checks"]
        ],
        "Predictions that held": [
            [row["lesson"], row["what"], f"{row['held']} of {row['of']}"] for row in summary["predictions"]
        ],
        "Results": [
            [row["lesson"], row["name"], "" if row["std"] is None else f"mean {row['mean']:.4g}, std {row['std']:.2g}",
             ", ".join(f"{value:.4g}" for value in row["values"])] for row in summary["results"]
        ],
        "Calibration": [[summary["calibration"]["words"]]],
    }  # fmt: skip
    return "\n\n".join("\n".join([title, *aligned(lines)]) for title, lines in tables.items() if lines)
