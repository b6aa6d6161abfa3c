"""What we quote and how far it was read: data/sources.json has every source that a file names, and no other."""

import json
import re
from functools import cache

from tests.docs import ROOT

SOURCES = json.loads((ROOT / "data" / "sources.json").read_text(encoding="utf-8"))
FIELDS = {"id", "link", "title", "what", "n", "self_selected", "read"}
READ = ("in full", "in part", "abstract only", "not opened")
QUOTING = (
    "README.md", "CITATION.cff", "data/README.md", "data/*/README.md", "data/results/*/README.md",
    "data/claims/**/*.yaml", "data/paper/*.json", "docs/*.md", "notebooks/src/*.py",
    "lora_lab/**/*.py", "lora_course/**/*.py",
)  # fmt: skip
FILES = sorted({path.relative_to(ROOT).as_posix() for pattern in QUOTING for path in ROOT.glob(pattern)})
OURS = ("http://127.0.0.1", "http://www.w3.org")


@cache
def text_of(file: str) -> str:
    """The file in one line, without what may stand between a name and a year."""
    return re.sub(r"[(),]", "", re.sub(r"\s+(# )?", " ", (ROOT / file).read_text(encoding="utf-8")))


def issues_in(text: str) -> set[str]:
    """Numbers of the issues that are named: "issue 60", "issues 35 and 149"."""
    return {number for found in re.findall(r"\b[Ii]ssues? (\d+(?: and \d+)*)", text) for number in found.split(" and ")}


def is_quoted(source: dict, file: str) -> bool:
    text = text_of(file)
    if " issue " in source["id"]:
        return source["id"].rpartition(" ")[2] in issues_in(text)
    return any(words in text for words in (source["id"], source["link"], *source.get("as", ())))


def test_each_source_is_listed_once_and_quoted_and_every_file_says_so_where_nobody_read_it():
    for source in SOURCES:
        assert source.keys() - {"as"} == FIELDS
        assert source["read"] in READ, source
        assert source["self_selected"] in (True, False, None), source
        assert source["link"].startswith("http"), source
        quoting = [file for file in FILES if is_quoted(source, file)]
        assert quoting, source
        unread = source["read"] == "not opened"
        assert [file for file in quoting if unread and "not read here" not in text_of(file)] == [], source
    ids = [source["id"] for source in SOURCES]
    assert len(set(ids)) == len(ids)
    numbers = [name.rpartition(" ")[2] for name in ids if " issue " in name]
    assert len(set(numbers)) == len(numbers)  # else a bare number would name two


def test_what_is_quoted_is_a_known_source():
    issues = {source["id"].rpartition(" ")[2] for source in SOURCES if " issue " in source["id"]}
    links = tuple(source["link"] for source in SOURCES)
    names = {words for source in SOURCES for words in source.get("as", ())}
    for file in FILES:
        text = text_of(file)
        assert issues_in(text) <= issues, file
        for url in re.findall(r"https?://[^\s\"'`>\]]+", text):
            assert url.startswith(OURS) or url.startswith(links), f"{file}: {url}"
        for number in re.findall(r"arXiv:? ?(\d{4}\.\d{4,5})", text):
            assert any(link.endswith(f"/{number}") for link in links), f"{file}: {number}"
        for name in re.findall(r"[A-Z][\w-]+ et al\.? (?:19|20)\d\d", text):
            assert name in names, f"{file}: {name}"
