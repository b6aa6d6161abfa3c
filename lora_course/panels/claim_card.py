"""The claim panel: one claim, its premises as menus, and the verdict that follows from them at once."""

from __future__ import annotations

from typing import Any

import ipywidgets as W

from lora_course.claims.cards import Premise, card, judge, load_cards
from lora_course.claims.claim_tests import said
from lora_lab.errors import LabError
from lora_lab.widgets.panel import FULL_WIDTH, Panel, cannot, wrapped


class ClaimCard(Panel):
    """Choose a claim, change a premise, read what follows.

    claim   id or number to begin with
    Raises: NotFound for an unknown claim.
    """

    def __init__(self, claim: str = "one_24gb_card") -> None:
        super().__init__("A claim and its premises")
        first = card(claim)
        options = [(f"{one.number} {one.statement}", name) for name, one in load_cards().items()]
        self.claim = W.Dropdown(options=options, value=first.id, description="claim", layout=W.Layout(width="98%"))
        self.menus: dict[str, W.Dropdown] = {}
        self.premises = W.Box(layout=W.Layout(display="flex", flex_flow="row wrap", width="100%"))
        self.words.layout = FULL_WIDTH
        self.claim.observe(self._chosen, "value")
        self.arrange(wrapped(self.claim), self.premises, self.words)
        self._chosen()

    def changes(self) -> dict[str, Any]:
        """The premises as the menus have them."""
        return {name: menu.value for name, menu in self.menus.items()}

    def _chosen(self, _: object = None) -> None:
        """Menus for the premises of another claim, each at the card's own value."""
        self.menus = {name: _menu(premise) for name, premise in card(self.claim.value).all_premises.items()}
        for menu in self.menus.values():
            menu.observe(self._paint, "value")
        self.premises.children = tuple(self.menus.values())
        self._paint()

    def _paint(self, _: object = None) -> None:
        with self.lock:
            try:
                self.words.value = judge(self.claim.value, **self.changes())._repr_html_()
            except LabError as error:  # two premises that do not go together
                self.words.value = cannot(str(error))


def _menu(premise: Premise) -> W.Dropdown:
    """The card's own value and those that are worth trying; of a list, each of them alone as well."""
    own = premise.value
    found = {said(value): value for value in (own, *premise.options)}
    layout = W.Layout(width="260px")
    return W.Dropdown(
        options=list(found.items()), value=own, description=premise.name, tooltip=premise.means, layout=layout,
        style={"description_width": "110px"},
    )  # fmt: skip
