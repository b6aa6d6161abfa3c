"""`lora-lab claims`: what people say about LoRA, with verdicts computed on request."""

from __future__ import annotations

import click

from lora_lab.cli.shared import JSON, tell
from lora_lab.errors import BadValue


@click.command()
@click.argument("claim", required=False)
@click.option("--set", "changes", multiple=True, metavar="PREMISE=VALUE", help="Change a premise; can be repeated.")
@click.option("--store", default=None, help="A folder of your own runs, for a claim judged by runs.")
@JSON
def claims(claim: str | None, changes: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """The verdict on CLAIM (an id, or a number such as 6b), or on all claims."""
    from lora_course.claims import cards
    from lora_course.claims.claim_tests import said

    for change in changes:
        if "=" not in change:
            raise BadValue(f"--set takes PREMISE=VALUE, such as gpu_gb=48, not '{change}'")
    if claim is None:
        if changes or store:
            raise BadValue("--set and --store need one claim: name it, such as one_24gb_card")
        verdicts = cards.judge_all().values()
        lines = [f"{one.card.number:4} {one.words:40} {one.card.statement}  [{one.card.id}]" for one in verdicts]
        tell({"claims": [one.to_json() for one in verdicts]} if as_json else "\n".join(lines))
        return
    pairs = (change.partition("=") for change in changes)
    found = cards.judge(claim, store=store, **{name.strip(): value for name, _, value in pairs})
    one = found.card
    premises = [f"  {name} = {said(found.premises[name])}    {p.means}" for name, p in one.all_premises.items()]
    evidence = [f"evidence: {source}" for source in found.evidence]
    lines = [str(one), f"predicts: {one.prediction}", "premises:", *premises, "", str(found), "", *evidence]
    tell(found.to_json() if as_json else "\n".join([*lines, f"not shown: {one.limits}"]))
