"""A study: labeled groups of recipes, one recipe per seed, and verdicts between the groups.

study = Study.of("minilm", "rt", {"r1": LoRA(rank=1), "r8": "lora:rank=8"}, seeds=5, lr=2e-3, steps=200)
study.run("runs").verdicts({"rank": ("r8", "r1")})

Methods are given by name, with the settings that differ from the defaults:
probe,head,lora,lora:rank=4:targets=all-linear,prompt:tokens=10:init=random,full
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.experiments.results import Runs
from lora_lab.experiments.statistics import MARGIN, Verdict, check_margin, verdicts_of
from lora_lab.experiments.sweep import sweep
from lora_lab.methods import method_from
from lora_lab.methods.base import Method, check_method, plain, whole
from lora_lab.methods.lora import LoRA
from lora_lab.training.recipe import Recipe, changed, check_fields
from lora_lab.training.runs import FINISHED, Run, Store


@dataclass(frozen=True)
class Study:
    """Groups of recipes and, after `run`, their runs.

    groups   {label: recipes}; the i-th recipes of two groups form a pair, with the same seed, data order and examples
    margin   equivalence margin, fixed before anything runs
    found    {recipe: run}, including failed runs
    """

    groups: Mapping[str, Sequence[Recipe]]
    margin: float = MARGIN
    found: Mapping[Recipe, Run] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: str, task: str, methods: Mapping[str, Any], seeds: int | Iterable[int] = 5,
        margin: float = MARGIN, **fields: Any,
    ) -> Self:  # fmt: skip
        """Make a group for each entry of `methods`.

        methods   {label: a `Method`, a string such as "lora:rank=4", or {"method": either of these, **fields}}
        seeds     number of seeds, or the seeds themselves
        fields    recipe fields that all groups share; `validations` defaults to 0
        Raises: BadValue for an invalid value.
        """
        margin, seeds = plain(margin), plain(seeds)
        check_margin(margin, shares=False)
        groups, numbers = {}, list(seeds) if isinstance(seeds, Iterable) else range(whole("seeds", seeds))
        for label, given in methods.items():
            own = given if isinstance(given, Mapping) else {"method": given}
            settings = {"model": model, "task": task, "method": None, "validations": 0, **fields, **own}
            check_fields(settings)
            (method,) = contenders([settings.pop("method")])
            groups[label] = [Recipe(method=method, **settings).at_seed(seed) for seed in numbers]
        return cls(groups, margin)

    @property
    def recipes(self) -> list[Recipe]:
        """All distinct recipes."""
        return list(dict.fromkeys(recipe for group in self.groups.values() for recipe in group))

    def run(self, store: Store | str | Path = "runs", **options: Any) -> Self:
        """Train the runs that the store lacks; return the study with its runs. For options and errors, see `sweep`."""
        return replace(self, found={run.recipe: run for run in sweep(self.recipes, store, **options).runs})

    def runs(self, label: str) -> list[Run]:
        """Return a group's finished runs, in the order of its recipes."""
        return self._finished(self._group(label))

    @property
    def missing(self) -> str:
        """Why the study is incomplete, such as "2 of 15 runs are missing: the loss became nan"; "" if complete."""
        missing = len(self.recipes) - len(self._finished(self.recipes))
        reason = next((run.error for run in self.found.values() if run.error), "stopped; repeat the call to resume")
        return f"{missing} of {len(self.recipes)} runs are missing: {reason}" if missing else ""

    def verdicts(self, pairs: Mapping[Any, Sequence[str]]) -> dict[Any, Verdict]:
        """Return Holm-corrected {name: verdict} for {name: (label, label)}, from seeds that both groups finished."""
        sides = {}
        for name, labels in pairs.items():
            if len(labels) < 2:
                raise BadValue(f"{name} must be a pair of labels, such as ('rank 8', 'rank 1'), not {labels!r}")
            first, second, *_ = labels
            a, b = self._group(first), self._group(second)
            if len(a) == len(b):  # recipe i of `a` and recipe i of `b` are a pair
                both = [pair for pair in zip(a, b, strict=True) if len(self._finished(pair)) == 2]
                a, b = [own for own, _ in both], [other for _, other in both]
            runs = Runs(tuple(self._finished(a))), Runs(tuple(self._finished(b)))
            if all(runs):
                sides[name] = runs
        return verdicts_of(sides, self.margin)

    def _group(self, label: str) -> Sequence[Recipe]:
        if label not in self.groups:
            raise NotFound(f"the study has no group '{label}'; nearest: {nearest(label, self.groups)}")
        return self.groups[label]

    def _finished(self, recipes: Iterable[Recipe]) -> list[Run]:
        return [run for recipe in recipes if (run := self.found.get(recipe)) and run.status in FINISHED]


# ---- methods by name


def contenders(given: str | Method | Iterable[str | Method]) -> list[Method]:
    """Make methods from a string such as "head,lora:rank=4:targets=q+v" (+ joins items), a method, or a list of them.

    Raises: BadValue for an unknown method or setting, no method, or a method named twice.
    """
    given = given.split(",") if isinstance(given, str) else given if isinstance(given, Iterable) else [given]
    methods = [_method(item) if isinstance(item, str) else item for item in given if str(item).strip()]
    for method in methods:
        check_method(method)
    if not methods:
        raise BadValue("name at least one method to compare, for example lora,full")
    for name in (names := [label(method) for method in methods]):  # labels round numbers to six digits
        if names.count(name) > 1:
            raise BadValue(f"{name} is named twice: name each method once, or use settings that differ more")
    return methods


def label(method: Method) -> str:
    """Return a short name for a method and its settings, such as "LoRA r8 q,v" or "prompt tokens 10"."""
    name, settings = method.name, changed(method, ",")
    if isinstance(method, LoRA):
        name = f"LoRA r{method.rank} {','.join(method.targets)}"
        settings = {k: words for k, words in settings.items() if k not in ("rank", "targets")}
    return " ".join([name, *settings.values()])


def _method(text: str) -> Method:
    """Parse one method, such as "prompt:tokens=10:init=random"."""
    name, *options = (part.strip() for part in text.split(":"))
    if name == "qlora":  # LoRA on all linear layers by default
        has_targets = any(option.startswith("targets") for option in options)
        lora = ":".join(["lora", *options, *([] if has_targets else ["targets=all-linear"])])
        raise BadValue(f"a comparison uses one dtype for all frozen bases: write {lora} and --dtype nf4")
    settings: dict[str, Any] = {"name": name}
    for setting in options:
        option, equals, value = map(str.strip, setting.partition("="))
        if not (option and equals and value):
            raise BadValue(f"a setting of {name} must be option=value, such as rank=4 or targets=q+v, not '{setting}'")
        if option in settings:
            raise BadValue(f"'{text.strip()}' sets {option} twice: set it once")
        settings[option] = {"true": True, "false": False, "none": None}.get(value.lower(), value.replace("+", ","))
        for kind in (float, int):  # a whole number is an int
            with suppress(ValueError):
                settings[option] = kind(value)
    return method_from(settings)
