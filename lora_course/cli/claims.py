"""`lora-lab claims`: what people say about LoRA, with verdicts computed when you ask."""

import click

from lora_lab.cli.shared import JSON, tell
from lora_lab.errors import BadValue


@click.command()
@click.argument("claim", required=False)
@click.option("--set", "changes", multiple=True, metavar="PREMISE=VALUE", help="Change a premise (repeatable).")
@click.option("--store", default=None, help="Folder with your own runs, for claims that depend on runs.")
@JSON
def claims(claim: str | None, changes: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Print the verdict on CLAIM (a claim's id or number), or the verdicts on all claims."""
    from lora_course.claims import cards
    from lora_course.claims.cases import as_text

    for change in changes:
        if "=" not in change:
            raise BadValue(f"write --set premise=value, such as gpu_gb=48, not '{change}'")
    if claim is None:
        if changes or store:
            raise BadValue("--set and --store apply to a single claim: name one, such as one_24gb_card")
        verdicts = cards.judge_all().values()
        lines = [f"{v.card.number:4} {v.words:40} {v.card.statement}  [{v.card.id}]" for v in verdicts]
        tell({"claims": [verdict.to_json() for verdict in verdicts]} if as_json else "\n".join(lines))
        return
    pairs = (change.partition("=") for change in changes)
    verdict = cards.judge(claim, **{"store": store, **{name.strip(): value for name, _, value in pairs}})
    card = verdict.card
    premises = [f"  {name} = {as_text(verdict.premises[name])}    {p.means}" for name, p in card.all_premises.items()]
    evidence = [f"evidence: {source}" for source in verdict.evidence]
    lines = [str(card), f"predicts: {card.prediction}", "premises:", *premises, "", str(verdict), "", *evidence]
    tell(verdict.to_json() if as_json else "\n".join([*lines, f"not shown: {card.limits}"]))
