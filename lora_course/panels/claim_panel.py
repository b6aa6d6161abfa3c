"""One claim, drawn by `js/claim_panel.js` and judged here: drag its premises until the verdict changes."""

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import traitlets as T

from lora_course.claims.cards import MARKS, Card, Value, Verdict, card, judge, listed, load_cards
from lora_course.claims.cases import as_text
from lora_lab.errors import BadValue, NotFound
from lora_lab.widgets.base import Panel

HANDLES = ("margin", "gpu_gb", "times", "high", "percent", "by")  # premises that move the line in the plot


class ClaimPanel(Panel, file="claim_panel.js"):
    """A claim, its premises as sliders and menus, the verdict, and the evidence as dots on an axis.

        ClaimPanel()                         all claims; "one 24 GB card" is shown first
        ClaimPanel("no_quality_drop")        all claims; this one, given by id or number, is shown first
        ClaimPanel(claims=["11"])            only claim 11

    claim   Id of the claim shown.
    at      Index of the selected value of each premise that can be changed.
    Raises: NotFound for an unknown claim.
    """

    cards = T.Dict().tag(sync=True)  # {id: `prepared`}
    claim = T.Unicode().tag(sync=True)
    at = T.List(T.Int()).tag(sync=True)

    def __init__(self, claim: str = "", claims: Sequence[str] | str = ()) -> None:
        shown = [card(name).id for name in ([claims] if isinstance(claims, str) else claims)] or list(load_cards())
        super().__init__(cards={name: prepared(name) for name in shown})
        self.claim = card(claim or ("one_24gb_card" if "one_24gb_card" in shown else shown[0])).id
        self.at = self.cards[self.claim]["own"]

    def premises(self) -> dict[str, Any]:
        """Return the current values of the sliders and menus."""
        offered = _offered(card(self.claim))
        return {name: options[i] for (name, options), i in zip(offered.items(), self.at, strict=True)}

    def verdict(self) -> Verdict:
        """Return the verdict for the current values."""
        return judge(self.claim, **self.premises())

    def describe(self) -> str:
        verdict = self.verdict()
        return f"A claim and its premises. “{verdict.card.statement}” {MARKS[verdict.word]} {verdict}"

    @T.observe("claim")
    def _reset_premises(self, change: Any) -> None:
        if change["old"] and self.claim in self.cards and self._set_for != self.claim:  # the browser may have sent `at`
            self.at = self.cards[self.claim]["own"]

    @T.validate("claim")
    def _validate_claim(self, proposal: Any) -> str:
        if (name := card(proposal["value"]).id) not in self.cards:
            raise NotFound(f"claim {name} is not in this panel; available: {', '.join(self.cards)}")
        return name

    @T.validate("at")
    def _validate_at(self, proposal: Any) -> list[int]:
        lengths = [len(premise["options"]) for premise in self.cards[self.claim]["premises"]] if self.claim else []
        at = [int(index) for index in proposal["value"]]
        if lengths and (len(at) != len(lengths) or any(not 0 <= a < n for a, n in zip(at, lengths, strict=True))):
            raise BadValue(f"at={at} needs one index per premise; the premises have {lengths} values")
        self._set_for = self.claim
        return at


def _offered(claim: Card) -> dict[str, list[Value]]:
    """Return the values offered for each premise: those worth trying, and the card's own value."""
    offered: dict[str, list[Value]] = {}
    for p in (p for p in claim.all_premises.values() if p.options):
        options = [[v] if isinstance(p.value, list) and not isinstance(v, list) else v for v in p.options]
        offered[p.name] = options if p.value in options else [p.value, *options]
    return offered


@cache
def prepared(name: str) -> dict[str, Any]:
    """Return a card as JSON, with the outcome for every combination of premise values; the last premise varies fastest.

    An outcome is {word, on, tell, limits, cases: [[index in `pool`, 1/0/-1 = holds/fails/undecided], ...]}; the
    pool has [where, found, span] for each distinct case.
    """
    claim, pool, outcomes = card(name), dict[tuple[Any, ...], int](), []
    offered, all_premises = _offered(claim), claim.all_premises
    axis, log, lines = "", False, list[float]()
    for chosen in product(*offered.values()):
        premises: dict[str, Any] = dict(zip(offered, chosen, strict=True))
        verdict = judge(name, **premises)
        cases = []
        for case in verdict.cases:
            key = (case.where, case.found, tuple(float(f"{value:.5g}") for value in case.span))
            cases.append([pool.setdefault(key, len(pool)), -1 if case.holds is None else int(case.holds)])
        limits = [float(f"{value:.5g}") for value in verdict.limits]
        on = f"on {listed(verdict.on)}" if verdict.on else ""
        outcomes.append({"word": verdict.word, "on": on, "tell": verdict.would_tell, "limits": limits, "cases": cases})
        axis, log, lines = verdict.axis, verdict.log, [*lines, *limits]
    spans = [value for _, _, span in pool for value in span]
    names, own = list(offered), {name: all_premises[name].value for name in offered}
    return {
        **{name: getattr(claim, name) for name in ("number", "statement", "said_by", "source", "prediction", "limits")},
        "premises": [
            {"means": all_premises[name].means,
             "number": isinstance(own[name], int | float) and not isinstance(own[name], bool),
             "options": [as_text(value) for value in options]}
            for name, options in offered.items()
        ],
        "own": [options.index(own[name]) for name, options in offered.items()],
        "handle": next((names.index(handle) for handle in HANDLES if handle in names), -1),
        "axis": axis, "log": log, "domain": [min(spans + lines), max(spans + lines)],
        "pool": [list(key) for key in pool], "outcomes": outcomes,
    }  # fmt: skip
