import json
import re
from functools import cache

from tests.docs import ROOT

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
            assert all("not read here" in text_of(file) for file in quoting), source
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
