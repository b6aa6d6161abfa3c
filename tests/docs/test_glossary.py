"""The glossary has each term that a lesson explains, once, in English and Chinese."""

import re

from tests.docs import ROOT

DEFINED = (
    r"(?:\b[Aa]n?|[Tt]he|[Ii]ts|called(?: the)?|[Tt]wo|[Oo]ur) \*\*([^*\n]{2,40})\*\*",
    r"\*\*([^*\n]{2,40})\*\* (?:is|are|says|holds|means|turns|shows|decides|adds|keeps|has|have)\b",
)
# Words that a lesson stresses, or that the glossary has in another form.
STRESSED = {
    "alpha = c $\\sqrt{r}$", "alpha times rate", "change", "contrarian", "goal", "gpt-2's 0.35m and 0.77m", "mean",
    "predict", "second", "sentence", "share", "singular values", "system prompt of its own", "third", "value",
    "what it costs", "gb", "gib", "word",
}  # fmt: skip


def entries() -> list[list[str]]:
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] != "term"]


TERMS = [row[0].lower() for row in entries()]


def test_every_line_has_a_term_chinese_a_sentence_and_a_lesson():
    for row in entries():
        term, chinese, words, lesson = row
        assert re.search(r"[\u4e00-\u9fff]", chinese) or chinese.lower().startswith(term[:2].lower()), row
        assert 3 <= len(words.split()) <= 25, row
        assert list((ROOT / "notebooks" / "src").glob(f"{lesson}_*.py")), row
    assert len(set(TERMS)) == len(TERMS)


def test_each_term_that_a_lesson_explains_is_there():
    for source in (ROOT / "notebooks" / "src").glob("[0-9]*.py"):
        lines = source.read_text(encoding="utf-8").splitlines()
        text = " ".join(line[2:] for line in lines if line.startswith("# ") and not line.startswith("# %%"))
        explained = {term.strip(".,:").lower() for pattern in DEFINED for term in re.findall(pattern, text)}
        missing = explained - set(TERMS) - STRESSED
        assert not missing, f"{source.stem}: give {missing} a line in docs/glossary.md, or put it among STRESSED"
