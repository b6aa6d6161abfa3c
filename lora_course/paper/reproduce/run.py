"""Run items one after another, each in its own folder, and write each result as soon as it is ready.

    FOLDER/table6/plan-38.json   sizes chosen for a budget of 38 minutes; a second call reuses them
    FOLDER/table6/runs/          the store of its runs
    FOLDER/table6/result.json    rows, finding, rule, verdict; a second call returns it

Runs can be killed at any moment; the same call resumes them. A failure is recorded, and the other items still run.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lora_course import paper
from lora_course.paper.reproduce import Item, Judged, Kept, Place, Plan, Say, described, in_words, verdict_record
from lora_lab.errors import BadValue, LabError, in_a_sentence
from lora_lab.files import as_path, cached_json, read_json, write_json
from lora_lab.training import device
from lora_lab.training.runs import Store

Found = dict[str, Any]  # a result as stored
VERSION = 1
LATE = 1.03  # stop an item after this multiple of its time budget; the same call resumes it


def reproduce(
    items: Iterable[Item], folder: str | Path, *, minutes: float | None = None, again: bool = False,
    say: Say = lambda words: None,
) -> Iterator[Found]:  # fmt: skip
    """Run items in order, and yield each result as soon as it is stored.

    minutes  Time budget per item, instead of the item's own.
    again    Repeat items that have a result; finished training runs are reused.
    Raises: BadValue for a folder that cannot be written to.
    """
    folder = as_path(folder)
    Store(folder).check_writable()
    for item in items:
        say_named = partial(lambda name, words: say(f"{name}: {words}"), item.name)
        place = Place(folder / item.name, minutes or item.minutes, say_named, threading.Event())
        result = _stored_result(place.folder)
        if again or not result or result["budget_minutes"] != place.minutes:
            result = _run_item(item, place)
        else:
            place.say(f"{result['standing']}, from an earlier run")
        yield result


def kept(folder: str | Path, items: Iterable[str] = ()) -> list[Found]:
    """Read this version's results of some or all items from a folder. Raises: BadValue for an invalid file."""
    files = (as_path(folder) / name / "result.json" for name in items or described())
    return [result for file in files if file.is_file() and (result := read_json(file)).get("version") == VERSION]


def planned(items: Iterable[Item], minutes: float | None = None) -> Iterator[Found]:
    """Plan each item from this machine's speed, without training; `error` says why an item would not run."""
    trained = set[str]()
    for item in items:
        budget, error, plan = minutes or item.minutes, None, Plan({}, 0.0)
        try:
            plan = item.expected(budget)
        except LabError as failure:
            error = str(failure)
        words, needed = in_words(plan.sizes), round(plan.seconds / 60, 2)
        if item.store in trained and not error:
            words, needed = f"{words}; shares the runs of another item", 0.1
        trained |= {item.store} - {""}
        yield {
            "item": item.name, "title": f"{item.title} (a surrogate)", "finding": item.finding, "rule": item.rule,
            "budget_minutes": budget, "sizes": dict(plan.sizes), "words": words, "minutes": needed, "error": error,
        }  # fmt: skip


def _stored_result(folder: Path) -> Found | None:
    """Return the stored result, whatever its time budget, unless the item failed."""
    return next((result for result in kept(folder.parent, [folder.name]) if not result["error"]), None)


def _run_item(item: Item, place: Place) -> Found:
    """Plan, run, judge and write one item. A failure becomes its `error` and never overwrites a measured result."""
    started = time.perf_counter()
    result: Found = {"sizes": {}, "planned_seconds": 0.0, "rows": [], "verdicts": {}, "error": None}
    timer = threading.Timer(LATE * 60 * place.minutes, place.stop.set)
    timer.daemon = True
    try:
        shared = place.folder.parent / (item.store or item.name)  # items with shared runs have one plan
        plan = Plan(**cached_json(shared / f"plan-{place.minutes:g}.json", lambda: item.plan(place)._asdict()))
        result |= {"sizes": dict(plan.sizes), "planned_seconds": plan.seconds}
        summary = f"{in_words(plan.sizes)}; about {max(plan.seconds / 60, 0.1):.1f} min"
        place.say(f"{summary}; the finding: {item.finding} The rule: {item.rule}")
        timer.start()
        rows, verdicts = item.measured(plan.sizes, place)
        result["rows"] = [row._asdict() for row in rows]
        result["verdicts"] = {name: verdict_record(verdict) for name, verdict in verdicts.items()}
        result = rejudged(item, result)
    except Exception as failure:  # catch everything: one failure must not cost the other items' hours of work
        result = rejudged(item, {**result, "error": in_a_sentence(failure)})
    timer.cancel()
    place.say(result["error"] or f"{result['standing']}: {result['words']}")
    result |= {
        "version": VERSION, "item": item.name, "scale": "laptop", "budget_minutes": place.minutes,
        "seconds": time.perf_counter() - started,
        "environment": device.environment(device.choose(device.LENGTHS[0])),
    }  # fmt: skip
    if result["error"] and _stored_result(place.folder):
        place.say("the earlier result is kept")
        return result
    write_json(place.folder / "result.json", result)
    return read_json(place.folder / "result.json")


def rejudged(item: Item, result: Found) -> Found:
    """Judge a result's values by the item's current rule, and add the item's current texts and the paper's numbers.

    `ruled` says whether the rule is newer than the result.
    """
    table, own = paper.table(item.name), ("finding", "rule", "limits", "axis", "line")
    published = item.paper_says(table)
    others = {name: words.format_map(table.expected) for name, words in item.others.items()}
    texts = [{"published": published.get(r["name"], ""), "expected": others.get(r["name"], "")} for r in result["rows"]]
    values = Kept({row["name"]: row["yours"] for row in result["rows"]}, result["sizes"], result.get("verdicts", {}))
    judged = Judged("undecided", "it was not run") if result["error"] else item.judged(values)
    return {
        **result, **judged._asdict(), **{name: getattr(item, name) for name in own},
        "title": f"{item.title} (a surrogate)", "source": table.source, "shares": item.store,
        "ruled": result.get("ruled", "before") if result.get("rule", item.rule) == item.rule else "after",
        "rows": [{**row, **text} for row, text in zip(result["rows"], texts, strict=True)],
        "expected": dict(table.expected), "discrepancies": list(table.discrepancies),
    }  # fmt: skip


def rejudge(items: Iterable[Item], folder: str | Path) -> Iterator[Found]:
    """Rejudge and rewrite the items' results in a folder, without training. Raises: BadValue if no result exists."""
    stored = {result["item"]: result for result in kept(folder)}
    if not (found := [item for item in items if item.name in stored]):
        raise BadValue(f"there is no result for these items in {folder}; pass the --out folder of a finished run")
    for item in found:
        result = rejudged(item, stored[item.name])
        write_json(as_path(folder) / item.name / "result.json", result)
        yield result
