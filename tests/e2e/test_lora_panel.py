"""Tests of the panel "LoRA to scale" on a page without a kernel."""

import re

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from lora_lab import LoRA, params
from tests.e2e.pages import Pages, box_of, center, drag, move, panel_of
from tests.e2e.panels import lora


def rank_of(panel: Locator) -> int:
    value = panel.get_by_role("slider", name="rank").get_attribute("aria-valuetext") or ""
    return int(value.split()[1].replace(",", ""))


def integers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?![\d.])", text)]


def test_the_rank_slider_changes_picture_and_counts(pages: Pages) -> None:
    panel = panel_of(pages.open(lora(d=4096, rank=8)))
    status = panel.get_by_role("status")
    expect(status).to_be_empty()  # nothing is announced when a page opens
    strip = panel.locator(".picture rect.train").first
    before = box_of(strip)["height"]
    for position in (56, 88, 24):
        move(panel, "rank r", position)
        rank = rank_of(panel)
        full, trained = 4096**2, 2 * 4096 * rank
        headline = f"{full // trained}× fewer parameters to train" if trained < full else "1× as many numbers as W"
        expect(status).to_contain_text(headline)
        expect(status).to_contain_text(f"Stored: W + {trained:,}. Trained: {trained:,}")
        assert integers(panel.get_by_role("row", name="total").inner_text()) == [full + trained, trained]
    assert rank == 8
    assert box_of(strip)["height"] == pytest.approx(before, abs=0.01)


def test_a_model_is_counted_as_by_params(pages: Pages) -> None:
    panel = panel_of(pages.open(lora("model", model="gpt2")))
    for target in ("v", "o"):  # off, and on
        panel.get_by_role("checkbox", name=target, exact=True).dispatch_event("click")
    move(panel, "rank r", 32)
    counted = params("gpt2", LoRA(rank=rank_of(panel), targets=("q", "o")))
    words = panel.locator(".words").inner_text()
    assert f"{counted.total:,} + {counted.trainable:,}" in words
    stored = int(re.findall(r"([\d,]+) numbers of 4 bytes", words)[0].replace(",", ""))
    assert 0 < counted.adapter_bytes - 4 * stored < 40_000  # the file's header
    panel.get_by_text("all numbers in this picture").click()
    total = panel.locator("details tr").last
    expect(total).to_contain_text("total")
    assert integers(total.inner_text())[:2] == [counted.total, counted.trainable]


def test_the_patch_is_dropped_on_w_by_mouse_and_lifted_by_key(pages: Pages) -> None:
    page = pages.open(lora(d=4096, rank=64), reduced=True)
    panel = panel_of(page)
    patch, w = panel.locator(".patch"), panel.locator(".picture rect.frost").first
    area, w_area = (box["width"] * box["height"] for box in (box_of(patch), box_of(w)))
    assert area / w_area == pytest.approx(2 * 64 / 4096, rel=0.05)
    drag(page, center(patch), center(w))
    expect(panel.locator(".gathered")).to_contain_text("32 of these cover W")
    assert box_of(patch)["x"] == pytest.approx(box_of(w)["x"], abs=1.5)
    panel.get_by_role("button", name="lift the patch off W").press("Enter")
    expect(panel.locator(".gathered")).to_contain_text("drag it onto W")


def test_the_first_step_moves_only_b_and_the_table_adds_up(pages: Pages) -> None:
    panel = panel_of(pages.open(lora("steps"), reduced=True))
    expect(panel.locator(".title")).to_have_text("Take a step: which matrix moves?")
    expect(panel.locator(".big")).to_have_text("? gradient of A? gradient of B")
    panel.get_by_role("button", name="take a step").press("Enter")
    expect(panel.locator(".title")).to_have_text("The first step moves only B; then A learns too")
    expect(panel.locator(".big")).to_have_text(re.compile("^0 gradient of A in the step just taken3.26 gradient of B"))
    expect(panel.locator(".facts tr").nth(1)).to_contain_text(re.compile(r"0\s*3\.26"))
    expect(panel.get_by_role("status")).to_contain_text("From here on A has a gradient too")
    panel.get_by_text("all numbers in this picture").click()
    rows = panel.locator("details tr")
    expect(rows.last).to_contain_text("y")
    base, detour, y = (
        [float(cell.replace("−", "-")) for cell in rows.filter(has_text=name).last.locator("td").all_inner_texts()]
        for name in ("W x", "B A x", "y")
    )
    assert len(y) == 8
    assert np.allclose(np.add(base, detour), y)
