import inspect
import json
import re
import runpy
from functools import cache
from types import SimpleNamespace

import pytest

import lora_lab
from tests.conftest import ROOT

SOURCES = json.loads((ROOT / "data" / "sources.json").read_text(encoding="utf-8"))
FIELDS = {"id", "link", "title", "what", "n", "self_selected", "read"}
QUOTING = (
    "README.md", "CITATION.cff", "data/README.md", "data/*/README.md", "data/results/*/README.md",
    "data/claims/**/*.yaml", "data/paper/*.json", "docs/*.md", "notebooks/src/*.py",
    "lora_lab/**/*.py", "lora_course/**/*.py",
)  # fmt: skip
FILES = sorted({path.relative_to(ROOT).as_posix() for pattern in QUOTING for path in ROOT.glob(pattern)})
NOT_SOURCES = ("http://127.0.0.1", "http://www.w3.org")
LINKS = tuple(source["link"] for source in SOURCES)
ISSUES = [source["id"].rpartition(" ")[2] for source in SOURCES if " issue " in source["id"]]


@cache
def text_of(file: str) -> str:
    """Return a file as one line, without the punctuation that may separate a name and a year."""
    return re.sub(r"[(),]", "", re.sub(r"\s+(# )?", " ", (ROOT / file).read_text(encoding="utf-8")))


def issues_in(text: str) -> set[str]:
    """Return the numbers of the issues in a text such as "issue 60" or "issues 35 and 149"."""
    return {number for match in re.findall(r"\b[Ii]ssues? (\d+(?: and \d+)*)", text) for number in match.split(" and ")}


def is_quoted(source: dict, file: str) -> bool:
    text = text_of(file)
    if " issue " in source["id"]:
        return source["id"].rpartition(" ")[2] in issues_in(text)
    return any(words in text for words in (source["id"], source["link"], *source.get("as", ())))


def test_each_source_is_complete_unique_and_quoted():
    for source in SOURCES:
        assert source.keys() - {"as"} == FIELDS
        assert source["read"] in ("in full", "in part", "abstract only", "not opened"), source
        assert source["self_selected"] in (True, False, None), source
        assert source["link"].startswith("http"), source
        quoting = [file for file in FILES if is_quoted(source, file)]
        assert quoting, source
        if source["read"] == "not opened":
            assert all(
                re.search("not read by us|(have|did) not read|have read only", text_of(file)) for file in quoting
            ), source
    for unique in ([source["id"] for source in SOURCES], ISSUES):  # texts name issues by their number alone
        assert len(set(unique)) == len(unique)


def test_every_quoted_source_is_listed():
    names = {words for source in SOURCES for words in source.get("as", ())}
    for file in FILES:
        text = text_of(file)
        assert issues_in(text) <= set(ISSUES), file
        for url in re.findall(r"https?://[^\s\"'`>\]]+", text):
            assert url.startswith((*NOT_SOURCES, *LINKS)), f"{file}: {url}"
        for number in re.findall(r"arXiv:? ?(\d{4}\.\d{4,5})", text):
            assert any(link.endswith(f"/{number}") for link in LINKS), f"{file}: {number}"
        for name in re.findall(r"[A-Z][\w-]+ et al\.? (?:19|20)\d\d", text):
            assert name in names, f"{file}: {name}"


quoted = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "quoted.py")))


def test_all_quoted_numbers_are_up_to_date():
    numbers = quoted.numbers()
    for path in quoted.texts():
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"<!--([\w.+-]+)-->", text) == [quote[1] for quote in quoted.QUOTE.finditer(text)], path
        assert quoted.filled(text, numbers) == text, path


def test_stale_quotes_are_replaced_and_unknown_ones_refused():
    text = "**80.1<!--a-->** % [80<!--a-->%](a.md), n=80<!--a-->, *worse<!--b-->*, not\N{NO-BREAK SPACE}tested<!--b-->"
    expected = "**81<!--a-->** % [81<!--a-->%](a.md), n=81<!--a-->, *holds<!--b-->*, holds<!--b-->"
    assert quoted.filled(text, {"a": "81", "b": "holds"}) == expected
    with pytest.raises(KeyError):
        quoted.filled("1<!--x-->", {})


EXPLAINED = (  # how lessons introduce a term
    r"(?:\b[Aa]n?|[Tt]he|[Ii]ts|called(?: the)?|[Tt]wo|[Oo]ur) \*\*([^*\n]{2,40})\*\*",
    r"\*\*([^*\n]{2,40})\*\* (?:is|are|says|holds|means|turns|shows|decides|adds|keeps|has|have)\b",
)
NOT_TERMS = {"sentence", "word"}  # only stressed
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


def test_every_public_name_and_method_is_documented(tmp_path):
    runpy.run_path(str(ROOT / "docs" / "api.py"))["build"](tmp_path, ["lora_lab"])  # all modules would take a minute
    page = (tmp_path / "lora_lab.html").read_text(encoding="utf-8")
    for name in lora_lab.__all__:
        value = getattr(lora_lab, name)
        docstring = inspect.getdoc(value)
        assert docstring, f"{name} has no docstring"
        assert not docstring.startswith(f"{name}("), f"{name} has only the docstring that dataclass generates"
        assert f'id="{name}"' in page
        members = vars(value).items() if inspect.isclass(value) else ()
        for member, attribute in members:
            if not member.startswith("_") and (inspect.isfunction(attribute) or isinstance(attribute, property)):
                assert inspect.getdoc(getattr(value, member)), f"{name}.{member} has no docstring"
