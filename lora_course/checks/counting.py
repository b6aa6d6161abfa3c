"""Exercises for lesson 11 (counting): which "10,000 times" claim is right, and an adapter file's rank."""

from lora_course.checks.verdict import Choice, Number, Verdict, exercise
from lora_lab import LoRA, params

SLIDES = [("llama-3-8b", 2), ("gemma-2-27b", 4), ("phi-3-mini", 1)]  # model; rank on q,v that gives nearly 10,000
FEWER = "{}, LoRA of rank {} on {}: 10,000 times fewer trained numbers"
TRUE = "nearly 10,000, with a low rank and few matrices"


def slides(which: int = 0) -> dict[str, tuple[str, str]]:
    """Return five slides that claim "10,000 times": {letter: (the claim, the true factor and the reason for it)}."""
    model, rank = SLIDES[which]
    pages = []
    for name, r, targets, why in (
        (model, 16, "q,v", "a higher rank trains more numbers"),
        (model, rank, "all-linear", "more matrices train more numbers"),
        (model, rank, "q,v", TRUE),
        ("minilm", rank, "q,v", "compared with a small model, an adapter is large"),
    ):
        count = params(name, LoRA(rank=r, targets=tuple(targets.split(","))))
        pages.append((FEWER.format(name, r, targets), f"{count.total / count.trainable:,.0f} times: {why}"))
    pages.append((
        f"{model}, LoRA of rank {rank} on q,v, for 100 customers: 10,000 times less disk than 100 full copies",
        "about 99 times: the disk holds one full copy of the model, too",
    ))  # fmt: skip
    return dict(zip("ABCDE", pages[which:] + pages[:which], strict=True))


@exercise
def check_rank_of_file(answer: int | None, targets: str = "gate,up,down", size: int = 37_868_984) -> Verdict:
    """Lesson 11: check the rank of an fp32 adapter for llama-3.2-3b, computed from the size of its file in bytes."""
    rank_one = params("llama-3.2-3b", LoRA(rank=1, targets=tuple(targets.split(",")))).trainable
    right = size // 4 // rank_one
    misconceptions = {
        4 * right: "that is for 1 byte per number: fp32 takes 4",
        2 * right: "that is for 2 bytes per number, but fp32 takes 4; or you counted A or B alone",
        28 * right: "that is one layer: the model has 28",
        size / 4 / rank_one: (whole := "almost: some bytes are tensor names, and a rank is a whole number"),
        (size - 20_000) / 4 / rank_one: whole,
    }
    names = size - 4 * rank_one * right
    why = f"rank 1 takes {rank_one:,} numbers of 4 bytes; the file is {right} times that, plus {names:,} bytes of names"
    return Number(right, misconceptions, why, hint="replace the ... with a rank").judge(answer)


@exercise
def check_slide(answer: str | None, which: int = 0) -> Verdict:
    """Lesson 11: check the letter of the slide that is nearly right."""
    replies = {letter: reply for letter, (_, reply) in slides(which).items()}
    (right,) = (letter for letter, reply in replies.items() if TRUE in reply)
    return Choice([right], replies, replies[right], hint="replace the ... with a letter, in quotes").judge(answer)
