"""`lora-lab claims`: what people say about LoRA, with verdicts that are computed when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lora_lab.cli.shared import JSON, tell
from lora_lab.errors import BadValue

if TYPE_CHECKING:
    from lora_course.claims.cards import Verdict


@click.command()
@click.argument("claim", required=False)
@click.option("--set", "changes", multiple=True, metavar="PREMISE=VALUE", help="Change a premise; may be repeated.")
@click.option("--store", default=None, help="A folder of your own runs, for a claim that is judged by runs.")
@JSON
def claims(claim: str | None, changes: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """The verdict on CLAIM, an id or a number such as 6b; of all claims when left out."""
    from lora_course.claims.cards import judge, judge_all

    if claim is None:
        if changes or store:
            raise BadValue("--set and --store are for one claim: name it, for example one_24gb_card")
        verdicts = judge_all()
        whole = {"claims": [one.to_json() for one in verdicts.values()]}
        tell(whole if as_json else "\n".join(map(_line, verdicts.values())))
        return
    found = judge(claim, store=store, **_pairs(changes))
    tell(found.to_json() if as_json else describe(found))


def describe(found: Verdict) -> str:
    """A verdict with all that it rests on."""
    from lora_course.claims.claim_tests import said

    one = found.card
    premises = [f"  {name} = {said(found.premises[name])}    {p.means}" for name, p in one.all_premises.items()]
    return "\n".join([str(one), f"predicts: {one.prediction}", "premises:", *premises, "", str(found), "",
                      *(f"evidence: {source}" for source in found.evidence), f"not shown: {one.limits}"])  # fmt: skip


def _line(found: Verdict) -> str:
    return f"{found.card.number:4} {found.words:40} {found.card.statement}  [{found.card.id}]"


def _pairs(changes: tuple[str, ...]) -> dict[str, Any]:
    """{"gpu_gb": "48"} from "gpu_gb=48". Raises: BadValue for what has no = in it."""
    for change in changes:
        if "=" not in change:
            raise BadValue(f"--set takes premise=value, such as gpu_gb=48, not '{change}'")
    return {name.strip(): value for name, _, value in (change.partition("=") for change in changes)}
