import re

from tests.docs import ROOT

EXPLAINED = (  # how lessons introduce a term
    r"(?:\b[Aa]n?|[Tt]he|[Ii]ts|called(?: the)?|[Tt]wo|[Oo]ur) \*\*([^*\n]{2,40})\*\*",
    r"\*\*([^*\n]{2,40})\*\* (?:is|are|says|holds|means|turns|shows|decides|adds|keeps|has|have)\b",
)
NOT_TERMS = {  # stressed words, and terms that the glossary has in another form
    "alpha = c $\\sqrt{r}$", "alpha times rate", "change", "contrarian", "goal", "gpt-2's 0.35m and 0.77m", "mean",
    "predict", "second", "sentence", "share", "singular values", "system prompt of its own", "third", "value",
    "what it costs", "gb", "gib", "word",
}  # fmt: skip
LINES = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES if re.match(r"\| (?!term )", line)]
TERMS = [row[0].lower() for row in ROWS]


def test_each_row_has_term_chinese_explanation_and_lesson():
    for row in ROWS:
        term, chinese, explanation, lesson = row
        assert re.search(r"[\u4e00-\u9fff]", chinese) or chinese.lower().startswith(term[:2].lower()), row
        assert 3 <= len(explanation.split()) <= 25, row
        assert list((ROOT / "notebooks" / "src").glob(f"{lesson}_*.py")), row
    assert len(set(TERMS)) == len(TERMS)


def test_glossary_has_every_term_of_the_lessons():
    for source in (ROOT / "notebooks" / "src").glob("[0-9]*.py"):
        lines = source.read_text(encoding="utf-8").splitlines()
        text = " ".join(line[2:] for line in lines if line.startswith("# ") and not line.startswith("# %%"))
        terms = {term.strip(".,:").lower() for pattern in EXPLAINED for term in re.findall(pattern, text)}
        missing = terms - set(TERMS) - NOT_TERMS
        assert not missing, f"{source.stem}: add {missing} to docs/glossary.md, or to NOT_TERMS"
