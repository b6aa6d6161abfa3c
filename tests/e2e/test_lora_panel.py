"""The panel "LoRA to scale" as people use it: on a page without a kernel, and in a notebook with one."""

import re

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from lora_lab import LoRA, LoRAPanel, params
from tests.e2e.pages import Pages, box_of, move, panel_of

MODELS = ["minilm", "gpt2", "llama-3-8b"]
SUM = ("W x", "B A x", "y")  # rows of the table: the first two add up to the third


def rank_of(panel: Locator) -> int:
    """The rank that the slider says it has."""
    words = panel.get_by_role("slider", name="rank").get_attribute("aria-valuetext") or ""
    return int(words.split()[1].replace(",", ""))


def numbers(text: str) -> list[int]:
    return [int(one.replace(",", "")) for one in re.findall(r"\d[\d,]*(?![\d.])", text)]


def test_a_slider_changes_what_is_drawn_told_and_counted(pages: Pages) -> None:
    panel = panel_of(pages.open(LoRAPanel(d=4096, rank=8, models=MODELS)))
    status = panel.get_by_role("status")
    expect(status).to_be_empty()  # a page with ten panels does not speak when it opens
    strip = panel.locator(".picture rect.train").first
    before = box_of(strip)["height"]
    for position in (56, 88, 24):
        move(panel, "rank r", position)
        rank = rank_of(panel)
        full, trained = 4096**2, 2 * 4096 * rank
        big = f"{full // trained}× fewer numbers to train" if trained < full else "1× as many numbers as W"
        expect(status).to_contain_text(big)
        expect(status).to_contain_text(f"Stored: W + {trained:,}. Trained: {trained:,}")
        assert numbers(panel.get_by_role("row", name="total").inner_text()) == [full + trained, trained]
    assert rank == 8
    assert box_of(strip)["height"] == pytest.approx(before, abs=0.01)


def test_a_model_is_counted_as_params_counts_it(pages: Pages) -> None:
    panel = panel_of(pages.open(LoRAPanel("model", model="gpt2", models=MODELS)))
    for target in ("v", "o"):  # off, and on
        panel.get_by_role("checkbox", name=target, exact=True).dispatch_event("click")
    move(panel, "rank r", 32)
    rank = rank_of(panel)
    counted = params("gpt2", LoRA(rank=rank, targets=("q", "o")))
    words = panel.locator(".words").inner_text()
    assert f"{counted.total:,} + {counted.trainable:,}" in words
    stored = int(re.findall(r"([\d,]+) numbers of 4 bytes", words)[0].replace(",", ""))
    assert 0 < counted.adapter_bytes - 4 * stored < 40_000  # the header, which names the tensors
    panel.get_by_text("all numbers in this picture").click()
    expect(panel.locator("details tr").last).to_contain_text("total")
    assert numbers(panel.locator("details tr").last.inner_text())[:2] == [counted.total, counted.trainable]


def test_the_gathered_patch_is_dropped_on_w_by_hand_and_by_key(pages: Pages) -> None:
    view = pages.open(LoRAPanel(d=4096, rank=64, models=MODELS), still=True)
    panel, patch = panel_of(view), panel_of(view).locator(".patch")
    w, at = box_of(panel.locator(".picture rect.frost").first), box_of(patch)
    assert at["width"] * at["height"] / (w["width"] * w["height"]) == pytest.approx(2 * 64 / 4096, rel=0.05)
    view.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    view.mouse.down()
    view.mouse.move(w["x"] + w["width"] / 2, w["y"] + w["height"] / 2, steps=4)
    view.mouse.up()
    expect(panel.locator(".gathered")).to_contain_text("32 of these cover W")
    assert box_of(patch)["x"] == pytest.approx(w["x"], abs=1.5)
    panel.get_by_role("button", name="lift the patch off W").press("Enter")
    expect(panel.locator(".gathered")).to_contain_text("drag it onto W")


def test_first_only_b_has_a_gradient_then_a_too_and_what_is_shown_adds_up(pages: Pages) -> None:
    panel = panel_of(pages.open(LoRAPanel("steps", models=MODELS), still=True))
    expect(panel.locator(".title")).to_have_text("Take a step: which matrix moves?")
    expect(panel.locator(".big")).to_have_text("? gradient of A? gradient of B")
    panel.get_by_role("button", name="take a step").press("Enter")
    expect(panel.locator(".title")).to_have_text("The first step moves only B; then A learns too")
    expect(panel.locator(".facts tr").nth(1)).to_contain_text(re.compile(r"0\s*3\.26"))
    expect(panel.get_by_role("status")).to_contain_text("From here on A has a gradient too")
    panel.get_by_text("all numbers in this picture").click()
    expect(panel.locator("details tr").last).to_contain_text("y")
    cells = {name: panel.locator("details tr", has_text=name).last.locator("td").all_inner_texts() for name in SUM}
    base, detour, y = ([float(cell.replace("−", "-")) for cell in cells[name]] for name in SUM)
    assert len(y) == 8
    assert np.allclose(np.add(base, detour), y)
