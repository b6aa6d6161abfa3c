"""Run items one after another, each in its own folder, and write each result as soon as it is ready.

    FOLDER/table6/plan-38.json   sizes chosen for this many minutes: a second call has the same
    FOLDER/table6/runs/          the store of its runs
    FOLDER/table6/result.json    rows, finding, rule, verdict; a second call reads it and is done
    FOLDER/report.md, report.png

It can be killed at any moment; the same call continues. A failure is recorded, and the other items still run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lora_course import paper
from lora_course.paper.reproduce import names
from lora_course.paper.reproduce.base import Item, Judged, Kept, Place, Plan, Row, Say, in_words, kept_verdict
from lora_lab.errors import BadValue, LabError, in_a_sentence
from lora_lab.files import read_json, remembered, write_json
from lora_lab.training import device
from lora_lab.training.runs import Store

Found = dict[str, Any]  # a result as it is written
After = Callable[[Sequence[Found]], None]
VERSION = 1
LATE = 1.03  # an item is stopped after this many times its minutes; the same call continues it


def reproduce(
    items: Iterable[Item], folder: str | Path, *, minutes: float | None = None, again: bool = False,
    say: Say = lambda words: None, after: After = lambda results: None,
) -> list[Found]:  # fmt: skip
    """Run items and return their results, in order; `after` gets all results so far after each.

    minutes  each item's budget instead of its own
    again    measure again what has a result; finished training runs are reused
    Raises: BadValue for a folder that cannot be written to.
    """
    check_minutes(minutes)
    Store(folder).check_writable()
    results: list[Found] = []
    for one in items:
        own = partial(lambda name, words: say(f"{name}: {words}"), one.name)
        place = Place(Path(folder) / one.name, minutes or one.minutes, own, threading.Event())
        found = _measured(place)
        if again or not found or found["budget_minutes"] != place.minutes:
            results.append(_made(one, place))
        else:
            place.say(f"{found['standing']}, as found before")
            results.append(found)
        after(results)
    return results


def kept(folder: str | Path) -> list[Found]:
    """All results in a folder, in the order in which items run. Raises: BadValue for a file that is not one."""
    files = [Path(folder) / name / "result.json" for name in names()]
    return [read_json(file) for file in files if file.is_file()]


def planned(items: Iterable[Item], minutes: float | None = None) -> list[Found]:
    """What each item would do here, judged by this machine's speed. Trains nothing. `error` if it would not run."""
    check_minutes(minutes)
    plans, trained = list[Found](), set[str]()
    for one in items:
        budget, error = minutes or one.minutes, None
        try:
            plan = one.expected(budget)
        except LabError as failure:
            plan, error = Plan({}, 0.0), str(failure)
        words, needed = in_words(plan.sizes), round(plan.seconds / 60, 2)
        if one.store in trained and not error:
            words, needed = f"{words}; the runs are those of another item", 0.1
        trained |= {one.store} - {""}
        plans.append(
            {
                **{"item": one.name, "title": title(one), "budget_minutes": budget, "finding": one.finding},
                **{"rule": one.rule, "sizes": dict(plan.sizes), "words": words, "minutes": needed, "error": error},
            }
        )
    return plans


def check_minutes(minutes: float | None) -> None:
    """Raises BadValue unless the minutes are above 0."""
    if minutes is not None and not 0 < minutes < 1e6:
        raise BadValue(f"minutes is what each item may take, above 0, not {minutes:g}")


def title(one: Item) -> str:
    """The item's title, marked as a surrogate."""
    return f"{one.title} (a surrogate)"


def _measured(place: Place) -> Found | None:
    """The stored result, for any number of minutes, unless it failed."""
    file = place.folder / "result.json"
    found = read_json(file) if file.is_file() else {}
    return found if found.get("version") == VERSION and not found["error"] else None


def _made(one: Item, place: Place) -> Found:
    """Plan, run, judge, write. A failure becomes the result's `error`, which replaces nothing that was measured."""
    started, plan, judged = time.perf_counter(), Plan({}, 0.0), Judged("undecided", "it was not run")
    rows, verdicts, error = list[Row](), dict[str, Found](), None
    late = threading.Timer(LATE * 60 * place.minutes, place.stop.set)
    late.daemon = True
    try:
        plan = _plan(one, place)
        about = f"{in_words(plan.sizes)}; about {max(plan.seconds / 60, 0.1):.1f} min"
        place.say(f"{about}; the finding: {one.finding} The rule: {one.rule}")
        late.start()
        rows, found = one.measured(plan.sizes, place)
        verdicts = {name: kept_verdict(verdict) for name, verdict in found.items()}
        judged = one.judged(Kept({row.name: row.yours for row in rows}, plan.sizes, verdicts))
    except Exception as failure:  # whatever it is: the other items' hours must not be lost with it
        error = in_a_sentence(failure)
    late.cancel()
    place.say(error or f"{judged.standing}: {judged.words}")
    result = {
        **{"version": VERSION, "item": one.name, "scale": "laptop", "ruled": "before"},
        **_told(one, [row._asdict() for row in rows]),
        **{"standing": judged.standing, "words": judged.words, "error": error, "verdicts": verdicts},
        **{"budget_minutes": place.minutes, "sizes": dict(plan.sizes), "planned_seconds": plan.seconds},
        "seconds": time.perf_counter() - started,
        "environment": device.environment(device.choose(device.LENGTHS[0])),
    }
    if error and _measured(place):
        place.say("the result that is there stays as it is")
        return result
    write_json(place.folder / "result.json", result)
    return read_json(place.folder / "result.json")


def _plan(one: Item, place: Place) -> Plan:
    """The plan that was made for these minutes, one for all items that share their runs; else a new one."""
    folder = place.folder.parent / (one.store or one.name)
    kept = remembered(folder / f"plan-{place.minutes:g}.json", lambda: one.plan(place)._asdict())
    return Plan(kept["sizes"], kept["seconds"])


def _told(one: Item, rows: list[Found]) -> Found:
    """What the item and the paper's table currently say about rows."""
    table = paper.table(one.name)
    published, others = (one.published(table), one.others(table)) if rows else ({}, {})
    beside = [{"published": published.get(row["name"], ""), "expected": others.get(row["name"], "")} for row in rows]
    return {
        **{"title": title(one), "source": table.source, "finding": one.finding, "rule": one.rule, "limits": one.limits},
        **{"axis": one.axis, "line": one.line, "shares": one.store},
        "rows": [{**row, **own} for row, own in zip(rows, beside, strict=True)],
        **{"expected": dict(table.expected), "discrepancies": list(table.discrepancies)},
    }


def rejudged(one: Item, found: Found) -> Found:
    """Judge a result's values again by the item's current rule; `ruled` says if the rule is newer than the result."""
    kept = Kept({row["name"]: row["yours"] for row in found["rows"]}, found["sizes"], found.get("verdicts", {}))
    judged = Judged(found["standing"], found["words"]) if found["error"] else one.judged(kept)
    ruled = found.get("ruled", "before") if found["rule"] == one.rule else "after"
    standing = {"ruled": ruled, "standing": judged.standing, "words": judged.words}
    return {**found, **_told(one, found["rows"]), **standing}


def rejudge(items: Iterable[Item], folder: str | Path, after: After = lambda results: None) -> list[Found]:
    """Judge again, and write, the results of these items in a folder; nothing is trained. Raises: BadValue for none."""
    there, results = {found["item"]: found for found in kept(folder)}, list[Found]()
    for one in items:
        if one.name in there:
            results.append(rejudged(one, there[one.name]))
            write_json(Path(folder) / one.name / "result.json", results[-1])
            after(results)
    if not results:
        raise BadValue(f"there is no result of these items in {folder}; give the --out of a finished run")
    return results
