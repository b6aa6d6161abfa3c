"""Panels drawn by the browser: anywidget classes whose traits hold the data and whose ES modules draw it.

A panel is one Python class and one file in `js/`. A widget's module cannot import other files, so `module` bundles the
file with its imports. See `docs/panels.md` for the design rules.
"""

import base64
import gzip
import html
import json
import re
import threading
import time
from collections import deque
from functools import cache, wraps
from pathlib import Path
from string import Template
from typing import Any, ClassVar, Self

import anywidget
import traitlets as T
from IPython import get_ipython

from lora_lab.errors import BadValue, LabError, in_a_sentence, printable
from lora_lab.files import as_path, write_atomically
from lora_lab.training.watching import headless, waits

JS = Path(__file__).with_name("js")
PAINTS_PER_SECOND = 4
MIME = "application/vnd.lora-lab.panel"  # holds what `compressed` returns
_IMPORT = re.compile(r'^import (?:(\w+)|\{[^}]*\}) from "\./([\w.]+)";\n', re.M)


@cache
def module(file: str) -> str:
    """Bundle a file in `js/` and its imports into one ES module: each file once, before the files that import it."""
    parts: dict[str, str] = {}

    def add(name: str) -> None:
        text = (JS / name).read_text(encoding="utf-8")
        for style, imported in _IMPORT.findall(text):
            if style:
                parts[imported] = f"const {style} = {json.dumps((JS / imported).read_text(encoding='utf-8'))};\n"
            elif imported not in parts:
                add(imported)
        parts[name] = re.sub(r"^export (?!default)", "", _IMPORT.sub("", text), flags=re.M)

    add(file)
    return "\n".join(parts.values())


def classic(file: str, name: str) -> str:
    """Return `module` as a classic script, which also runs on `file://` and sets `labPanels[name]` for `js/host.js`."""
    text = re.sub("^export default ", f"globalThis.labPanels.{name} = ", module(file), flags=re.M)
    return f"(() => {{\n{text}}})();\n"


class Panel(anywidget.AnyWidget):
    """A panel drawn by the browser. Subclasses name their script: `class LoRAPanel(Panel, file="lora_panel.js")`.

    Traits tagged `sync=True` are sent to the browser and to pages without a kernel, so they must be JSON or bytes.
    """

    file: ClassVar[str] = ""

    def __init_subclass__(cls, file: str = "", **kwargs: Any) -> None:
        if file:
            cls.file, cls._esm = file, module(file)
        init = cls.__init__

        @wraps(init)
        def checked(self: Any, *values: Any, **options: Any) -> None:
            try:
                init(self, *values, **options)
            except LabError:
                raise
            except (TypeError, ValueError, LookupError, AttributeError, T.TraitError) as error:
                raise BadValue(f"{type(self).__name__} cannot use these values: {in_a_sentence(error)}") from error

        cls.__init__ = checked  # type: ignore[method-assign]  # a wrong type becomes a one-sentence error
        super().__init_subclass__(**kwargs)

    def describe(self) -> str:
        """Describe the panel in plain words, for notebooks that are read without being run."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return the panel's own traits as JSON, with bytes as {"b64": ...}, and NaN and infinity as None."""
        own = sorted(set(self.class_traits(sync=True)) - set(anywidget.AnyWidget.class_traits()))
        values = {name: getattr(self, name) for name in own if not name.startswith("_")}
        binary = {n: {"b64": base64.b64encode(v).decode()} for n, v in values.items() if isinstance(v, bytes)}
        return dict[str, Any](json.loads(json.dumps(values | binary), parse_constant=lambda _: None))

    def snapshot(self) -> dict[str, Any]:
        """Return what a page needs to show the panel as it is now: {panel, file, words, state}."""
        name = next(cls.__name__ for cls in type(self).__mro__ if "file" in vars(cls))
        return {"panel": name, "file": self.file, "words": self.describe(), "state": self.state()}

    def save(self, path: str | Path) -> Path:
        """Write a page that shows the panel without a kernel or network, and return its path.

        Raises: BadValue if the file cannot be written.
        """
        path = as_path(path)
        write_atomically(path, page(self.snapshot()).encode())
        return path

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = {**data, "text/plain": printable(self.describe())}
        if headless():  # for screenshots in `make notebooks` and for the site
            data[MIME] = compressed(self.snapshot())
        return data, metadata


class Background:
    """Work that can be started and stopped. Subclasses implement `_work`, check `_stop`, and keep `state` up to date.

    error   one sentence if the work failed, else ""
    """

    state: str = "ready"
    error: str = ""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.thread: threading.Thread | None = None
        self.stamps = deque[float](maxlen=1000)  # end times of only the last steps, so that an old pause doesn't count

    def start(self) -> None:
        """Start the work in a thread and return immediately."""
        self._stop.clear()  # Stop may have been pressed while nothing was running
        self.state = "starting"
        self.thread = threading.Thread(target=self.work, name=f"lora-lab-{type(self).__name__}", daemon=True)
        self.thread.start()

    def seconds_for(self, steps: int, least: int = 3) -> int | None:
        """Estimate the seconds for `steps` more steps from the recent pace. Return None before `least` steps."""
        last = list(self.stamps)
        return None if len(last) < least else round((last[-1] - last[0]) / (len(last) - 1) * steps)

    def stop(self) -> None:
        """Ask the work to stop after its current step."""
        self._stop.set()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self.thread is not None and self.thread.is_alive()

    def work(self) -> None:
        """Do all the work in the current thread. An error sets `state` to "failed" and `error` to one sentence."""
        self.error = ""
        try:
            self._work()
        except Exception as error:  # an exception in a thread would go unnoticed
            self.error, self.state = in_a_sentence(error), "failed"
        finally:
            self._stop.clear()  # cleared here and not at the beginning, because Stop must work even right after Start

    def _work(self) -> None:
        raise NotImplementedError


class LivePanel(Panel):
    """A panel that works in the background when a button is pressed. Subclasses implement `_prepare` and `_paint`.

    A busy kernel may receive traits after the message that needs them, so a message includes the traits that it needs.
    """

    live = T.Dict().tag(sync=True)  # the progress of the work
    work: Any = None  # a `Background`
    made_in: ClassVar[dict[str, tuple[str, list[Any]]]] = {}  # by notebook cell: the last execution and its panels

    def __init__(self, **traits: Any) -> None:
        self.lock = threading.RLock()
        super().__init__(**traits)
        self.on_msg(self._heard)
        parent: Any = getattr(get_ipython(), "get_parent", dict)()  # the message that runs the cell
        if cell := parent.get("metadata", {}).get("cellId"):
            execution, panels = self.made_in.get(cell, ("", []))
            if execution != parent["header"]["msg_id"]:  # the cell was run again: its panels' Stop buttons are gone
                for panel in panels:
                    panel.stop()
                    panel.work = None  # frees its model: the widget itself stays in memory
                panels = []
            self.made_in[cell] = parent["header"]["msg_id"], [*panels, self]

    @property
    def busy(self) -> bool:
        """Whether the work is in progress."""
        return self.work is not None and self.work.alive

    def show(self) -> Self:
        """Return the panel; with LORA_LAB_HEADLESS=1, call `run` first. Raises: BadValue if the run fails."""
        if headless():
            self.run()
        return self

    def run(self) -> None:
        """Start the work unless it is running; with LORA_LAB_HEADLESS=1, wait for it to end.

        Raises: BadValue if the settings define no work; with LORA_LAB_HEADLESS=1, also if the work fails.
        """
        if not self.busy:
            self._begin(self._prepare())

    def stop(self) -> None:
        """Stop after the current step. Finished work is kept, and starting again continues from there."""
        if self.busy:
            self.work.stop()

    def _prepare(self) -> Background:
        """Return the work that `run` starts. Raises: BadValue if the settings define no work."""
        raise NotImplementedError

    def _paint(self, work: Any, busy: bool) -> dict[str, Any]:
        """Update the other traits, and return what `live` needs in addition to `state`, `busy` and `error`."""
        raise NotImplementedError

    def _begin(self, work: Background) -> None:
        """Start the work, and repaint several times a second until it ends; with LORA_LAB_HEADLESS=1, wait for it."""
        self.work = work
        if headless():
            work.work()
            self._update(work)
            if work.error:
                raise BadValue(work.error)
            return
        work.start()
        threading.Thread(target=self._paint_until_done, args=(work,), name="lora-lab-paint", daemon=True).start()

    def _update(self, work: Background) -> None:
        with self.lock, self.hold_sync():
            busy = work.alive  # read before `_paint`: if it is False, the results are complete
            more = self._paint(work, busy)
            state = "waiting for the other training run" if waits(work.thread) else work.state
            self.live = {"state": state, "busy": busy, "error": work.error, **more}

    def _paint_until_done(self, work: Background) -> None:
        message, finished = "", False
        while not finished:
            finished = not work.alive
            try:
                self._update(work)
            except Exception as error:  # a later paint may succeed; an exception in a thread would go unnoticed
                message = message or f"{type(error).__name__}: {error}"
                self.live = {**self.live, "state": work.state, "busy": work.alive, "error": message}
            if message:
                self._tell(message)
            time.sleep(1 / PAINTS_PER_SECOND)

    def _do(self, content: dict[str, Any]) -> None:
        """Handle a message from the browser."""
        {"run": self.run, "stop": self.stop}[content["do"]]()

    def _heard(self, _: Any, content: dict[str, Any], __: Any) -> None:
        try:
            with self.hold_sync():
                for name, value in content.get("traits", {}).items():
                    self.set_trait(name, value)
            self._do(content)
        except Exception as error:  # an exception in a message handler would go unnoticed
            self._tell(str(error))

    def _tell(self, message: str) -> None:
        self.live = {**self.live, "error": message, "told": time.monotonic()}  # sent even if the error repeats


def compressed(snapshot: dict[str, Any]) -> str:
    """Encode a snapshot for a notebook's output, with gzip and base64. Inverse: `uncompressed`."""
    text = json.dumps(snapshot, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()  # no date: equal panels give equal strings


def uncompressed(text: str) -> dict[str, Any]:
    """Decode what `compressed` returned."""
    return dict[str, Any](json.loads(gzip.decompress(base64.b64decode(text))))


def place(snapshot: dict[str, Any], picture: str = "") -> str:
    """Return the markup for a panel on a page; `picture` is the source of an image shown until the panel is drawn."""
    state = json.dumps(snapshot["state"], separators=(",", ":")).replace("<", "\\u003c")  # no tag or comment can begin
    still = f'<img src="{html.escape(picture)}" alt="{html.escape(snapshot["words"])}">' if picture else ""
    return f'<div data-panel="{snapshot["panel"]}"><script type="application/json">{state}</script>{still}</div>'


def page(*snapshots: dict[str, Any], dark: bool = False) -> str:
    """Return a page with these panels. The page makes no requests, so it works from `file://`."""
    paper, ink, scheme = ("#111", "#e6e6e6", "dark") if dark else ("#fff", "#1a1a1a", "light")
    files = {snapshot["panel"]: snapshot["file"] for snapshot in snapshots}
    host = (JS / "host.js").read_text(encoding="utf-8")
    code = "\n".join([host, *(classic(file, name) for name, file in files.items())]).replace("</script", "<\\/script")
    parts = {"paper": paper, "ink": ink, "scheme": scheme, "places": "\n".join(map(place, snapshots)), "scripts": code}
    return Template((JS / "page.html").read_text(encoding="utf-8")).substitute(parts)
