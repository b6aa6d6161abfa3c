"""The film of a training step as people use it: on a page without a kernel, and in a notebook with one."""

import random
import re

from playwright.sync_api import expect

from lora_lab.accounting.film import CATEGORIES, moments
from lora_lab.accounting.gpus import card, usable
from lora_lab.accounting.memory import largest, quick
from lora_lab.accounting.setup import OPTIMIZERS, Setup
from lora_lab.accounting.units import binary
from lora_lab.widgets.base import module
from lora_lab.widgets.memory_panel import METHODS, MemoryPanel, setup_of, shipped
from tests.e2e.pages import Pages, box_of, move, panel_of

EVALUATE = """([film, points]) => points.map((point) => {
    const found = evaluate(film, point);
    const top = Array.from(found.live.subarray(found.top * MANY, found.top * MANY + MANY));
    const quick = peakOf(film, point);
    return [found.peak, top, quick.bytes, openFilm(film).scenes[found.top].act === quick.act];
})"""


def test_the_browsers_arithmetic_is_pythons(pages: Pages) -> None:
    view, draw = pages.open(MemoryPanel(models=["minilm"], model="minilm")), random.Random(0)
    for film in [film for films in shipped().values() for film in films]:
        points = [
            {"batch": draw.choice([1, 2, 9]), "seq": draw.randint(film["low"], film["high"] or 9000),
             "rank": draw.choice([1, 8, 77]), "optimizer": draw.choice(OPTIMIZERS)}
            for _ in range(4)
        ]  # fmt: skip
        conditions = {name: film[name] for name in ("checkpointing", "quantised", "dtype", "device")}
        code = f"(given) => {{ {module('film.js')}; return ({EVALUATE})(given); }}"
        for point, (peak, live, fast, same_act) in zip(points, view.evaluate(code, [film, points]), strict=True):
            setup = Setup(**{name: point[name] for name in ("batch", "seq", "optimizer")}, **conditions)
            said = max((m.bytes for m in moments(film, point["rank"], setup)), key=lambda b: sum(b.values()))
            assert dict(zip(CATEGORIES, live, strict=True)) == said, point
            assert peak == fast == sum(said.values())
            assert same_act


def test_sliders_change_peak_finding_and_what_fits(pages: Pages) -> None:
    panel = panel_of(pages.open(MemoryPanel("llama-3-8b", "LoRA q, v", card="RTX 4090", models=["llama-3-8b"])))
    room = usable(card("RTX 4090"))
    expect(panel.get_by_role("status")).to_be_empty()  # a page with ten panels does not speak when it opens
    for position in (10, 40, 64):
        move(panel, "sequence length", position)
        words = panel.get_by_role("slider", name="sequence length").get_attribute("aria-valuetext") or ""
        seq = int(words.split()[0].replace(",", ""))
        setup = setup_of("llama-3-8b", "LoRA q, v", batch=1, seq=seq)
        peak = quick("llama-3-8b", METHODS["LoRA q, v"], setup).peak
        expect(panel.locator(".big")).to_contain_text(binary(peak))
        expect(panel.get_by_role("status")).to_contain_text("fits" if peak <= room else "does not fit")
        last = largest("seq", setup, lambda s: quick("llama-3-8b", METHODS["LoRA q, v"], s), room)
        expect(panel.locator(".facts tr").last).to_contain_text(f"{last:,}")
    assert peak > room
    expect(panel.locator(".picture .beyond")).to_have_count(1)


def test_the_column_follows_keys_and_pulling_and_goes_back_to_the_peak(pages: Pages) -> None:
    view = pages.open(MemoryPanel("llama-3-8b", "LoRA q, v", seq=1024, models=["llama-3-8b"]), still=True)
    panel = panel_of(view)
    slider = panel.get_by_role("slider", name="moment")
    peak = slider.get_attribute("aria-valuetext")
    assert peak
    assert peak.startswith("loss")
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") != peak
    slider.press("Home")
    assert "15.0 GiB" in (slider.get_attribute("aria-valuetext") or "")  # the weights alone
    box = box_of(panel.locator("[data-film]"))
    view.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 100)
    view.mouse.down()
    view.mouse.move(box["x"] + 0.65 * box["width"], box["y"] + 100, steps=3)
    view.mouse.up()
    assert re.match(r"backward, layer \d+ of 32", slider.get_attribute("aria-valuetext") or "")
    panel.get_by_role("button", name="play the step").press("Enter")  # without motion it ends at once
    assert slider.get_attribute("aria-valuetext") == peak
