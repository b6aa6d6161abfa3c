"""Tests of the memory panel on a page without a kernel."""

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
from tests.e2e.pages import Pages, box_of, drag, move, panel_of

EVALUATE = """([film, points]) => points.map((point) => {
    const found = evaluate(film, point);
    const top = Array.from(found.live.subarray(found.top * MANY, found.top * MANY + MANY));
    const quick = peakOf(film, point);
    return [found.peak, top, quick.bytes, openFilm(film).scenes[found.top].act === quick.act];
})"""


def test_the_browser_computes_the_same_bytes_as_python(pages: Pages) -> None:
    page, rng = pages.open(MemoryPanel(models=["minilm"], model="minilm")), random.Random(0)
    code = f"(given) => {{ {module('film.js')}; return ({EVALUATE})(given); }}"
    for film in [film for films in shipped().values() for film in films]:
        conditions = {name: film[name] for name in ("checkpointing", "quantised", "dtype", "device")}
        points = [
            {"batch": rng.choice([1, 2, 9]), "seq": rng.randint(film["low"], film["high"] or 9000),
             "rank": rng.choice([1, 8, 77]), "optimizer": rng.choice(OPTIMIZERS)}
            for _ in range(2)
        ]  # fmt: skip
        for point, (peak, live, quick_peak, same_act) in zip(points, page.evaluate(code, [film, points]), strict=True):
            setup = Setup(**{name: point[name] for name in ("batch", "seq", "optimizer")}, **conditions)
            expected = max((m.bytes for m in moments(film, point["rank"], setup)), key=lambda b: sum(b.values()))
            assert dict(zip(CATEGORIES, live, strict=True)) == expected, point
            assert peak == quick_peak == sum(expected.values())
            assert same_act


def test_the_length_slider_changes_the_peak_and_what_fits(pages: Pages) -> None:
    model, method = "llama-3-8b", "LoRA q, v"
    panel, capacity = (
        panel_of(pages.open(MemoryPanel(model, method, card="RTX 4090", models=[model]))),
        usable(card("RTX 4090")),
    )
    status = panel.get_by_role("status")
    expect(status).to_be_empty()  # nothing is announced when a page opens
    for position in (10, 40, 64):
        move(panel, "sequence length", position)
        value = panel.get_by_role("slider", name="sequence length").get_attribute("aria-valuetext") or ""
        setup = setup_of(model, method, batch=1, seq=int(value.split()[0].replace(",", "")))
        peak = quick(model, METHODS[method], setup).peak
        expect(panel.locator(".big")).to_contain_text(binary(peak))
        expect(status).to_contain_text("fits" if peak <= capacity else "does not fit")
        longest = largest("seq", setup, lambda s: quick(model, METHODS[method], s), capacity)
        expect(panel.locator(".facts tr").last).to_contain_text(f"{longest:,}")
    assert peak > capacity
    expect(panel.locator(".picture .beyond")).to_have_count(1)


def test_the_moment_follows_keys_and_drags_and_returns_to_the_peak(pages: Pages) -> None:
    page = pages.open(MemoryPanel("llama-3-8b", "LoRA q, v", seq=1024, models=["llama-3-8b"]), reduced=True)
    panel = panel_of(page)
    slider = panel.get_by_role("slider", name="moment")
    peak = slider.get_attribute("aria-valuetext") or ""
    assert peak.startswith("loss")
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") != peak
    slider.press("Home")
    assert "15.0 GiB" in (slider.get_attribute("aria-valuetext") or "")  # the weights alone
    box = box_of(panel.locator("[data-film]"))
    y = box["y"] + 100
    drag(page, (box["x"] + 0.6 * box["width"], y), (box["x"] + 0.65 * box["width"], y))
    assert re.match(r"backward, layer \d+ of 32", slider.get_attribute("aria-valuetext") or "")
    panel.get_by_role("button", name="play the step").press("Enter")  # ends at once with reduced motion
    assert slider.get_attribute("aria-valuetext") == peak
