import base64
import random
import re

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from lora_lab import ComparePanel, LoRA, LoRAPanel, MemoryPanel, RankPanel, SweepPanel, params
from lora_lab.accounting.film import CATEGORIES, moments
from lora_lab.accounting.gpus import card, usable
from lora_lab.accounting.memory import largest, quick
from lora_lab.accounting.setup import OPTIMIZERS, Setup
from lora_lab.accounting.units import binary
from lora_lab.widgets.base import module
from lora_lab.widgets.memory_panel import METHODS, setup_of, shipped
from tests.e2e.pages import Pages, box_of, center, drag, move, trait
from tests.e2e.panels import lora, memory, sweep, train, with_traits
from tests.widgets.test_rank_panel import sum_of


def value_of(panel: Locator, slider: str) -> str:
    return panel.get_by_role("slider", name=slider).get_attribute("aria-valuetext") or ""


def integers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?![\d.])", text)]


def test_the_rank_slider_changes_picture_counts_and_the_patch_that_is_dropped_on_w(pages: Pages) -> None:
    panel = pages.panel(lora(d=4096, rank=8), reduced=True)
    status, strip = panel.get_by_role("status"), panel.locator(".picture rect.train").first
    expect(status).to_be_empty()  # nothing is announced when a page opens
    before = box_of(strip)["height"]
    for position in (56, 88, 24):
        move(panel, "rank r", position)
        (rank, *_), full = integers(value_of(panel, "rank r")), 4096**2
        trained = 2 * 4096 * rank
        headline = f"{full // trained}× fewer parameters to train" if trained < full else "1× as many numbers as W"
        expect(status).to_contain_text(headline)
        expect(status).to_contain_text(f"Stored: W + {trained:,}. Trained: {trained:,}")
        assert integers(panel.get_by_role("row", name="total").inner_text()) == [full + trained, trained]
    assert rank == 8
    assert box_of(strip)["height"] == pytest.approx(before, abs=0.01)
    move(panel, "rank r", 48)
    assert integers(value_of(panel, "rank r"))[0] == 64
    patch, w = panel.locator(".patch"), panel.locator(".picture rect.frost").first
    area, w_area = (box["width"] * box["height"] for box in (box_of(patch), box_of(w)))
    assert area / w_area == pytest.approx(2 * 64 / 4096, rel=0.05)
    drag(panel, center(patch), center(w))
    expect(panel.locator(".gathered")).to_contain_text("32 of these cover W")
    assert box_of(patch)["x"] == pytest.approx(box_of(w)["x"], abs=1.5)
    panel.get_by_role("button", name="lift the patch off W").press("Enter")
    expect(panel.locator(".gathered")).to_contain_text("drag it onto W")


def test_a_model_is_counted_as_by_params(pages: Pages) -> None:
    panel = pages.panel(lora("model", model="gpt2"))
    for target in ("v", "o"):  # off, and on
        panel.get_by_role("checkbox", name=target, exact=True).dispatch_event("click")
    move(panel, "rank r", 32)
    counted = params("gpt2", LoRA(rank=integers(value_of(panel, "rank r"))[0], targets=("q", "o")))
    words = panel.locator(".words").inner_text()
    assert f"{counted.total:,} + {counted.trainable:,}" in words
    assert "At 2 bytes a number (bf16), gpt2 takes 249 MB, and its adapter " in words
    panel.get_by_text("all numbers in this picture").click()
    assert integers(panel.locator("details tr").last.inner_text())[:2] == [counted.total, counted.trainable]


def test_the_words_of_a_large_patch_stay_in_the_picture(pages: Pages) -> None:
    for width in (440, 820):
        panel = pages.panel(lora("model", model="llama-3-8b", rank=640, targets="all-linear"), width=width)
        words, picture = box_of(panel.locator(".gathered text").first), box_of(panel.locator(".picture svg"))
        assert words["x"] + words["width"] <= picture["x"] + picture["width"] + 4


def test_python_describes_the_rank_and_the_targets_that_are_drawn(pages: Pages) -> None:
    python = LoRAPanel("model", model="llama-3-8b", rank=1024, targets="gate", models=["gpt2"])
    python.model = "gpt2"  # it has no gate, and its layers are narrower
    trained = f"{params('gpt2', LoRA(rank=768, targets='all-linear')).trainable:,}"
    expect(pages.panel(python).locator(".words")).to_contain_text(trained)
    assert trained in python.describe()
    python.view = "size"
    assert "of rank 768 add" in python.describe()


def test_adapters_of_many_customers_fill_the_disk(pages: Pages) -> None:
    panel = pages.panel(lora("model", model="llama-3-8b", customers=1), reduced=True)
    patch, area = panel.locator(".patch"), "e => e.getAttribute('width') * e.getAttribute('height')"
    one = patch.evaluate(area)
    move(panel, "customers", 40)
    expect(panel.locator(".big")).to_have_text("95.9× less disk for 100 customers")
    expect(panel.locator(".words")).to_contain_text("100 full models take 1.61 TB.")
    assert patch.evaluate(area) == pytest.approx(100 * one, rel=0.01)
    move(panel, "customers", 68)
    expect(panel.locator(".disk")).to_contain_text("adapters = the model: 2,356")
    for target in ("q", "v"):
        panel.get_by_role("checkbox", name=target, exact=True).dispatch_event("click")
    expect(panel.get_by_role("slider", name="customers")).to_be_hidden()


def test_blocks_of_experts_say_how_many_there_are(pages: Pages) -> None:
    panel = pages.panel(LoRAPanel("model", model="mixtral-8x7b", models=[]), width=380)
    for role, sides in (("gate", "× 14,336× 4,096"), ("down", "× 4,096× 14,336")):
        expect(panel.locator(".tile").filter(has_text=role)).to_have_text(f"{role}32 layers× 8 experts{sides}")


def test_the_first_step_moves_only_b_and_the_table_adds_up(pages: Pages) -> None:
    panel = pages.panel(lora("steps"), reduced=True)
    expect(panel.locator(".title")).to_have_text("Take a step: which matrix moves?")
    expect(panel.locator(".big")).to_have_text("? gradient of A? gradient of B")
    panel.get_by_role("button", name="take a step").press("Enter")
    expect(panel.locator(".title")).to_have_text("The first step moves only B; then A learns too")
    expect(panel.locator(".big")).to_have_text(re.compile("^0 gradient of A in the step just taken3.26 gradient of B"))
    expect(panel.locator(".facts tr").nth(1)).to_contain_text(re.compile(r"0\s*3\.26"))
    expect(panel.locator(".facts tr").nth(2)).to_contain_text("next")
    expect(panel.get_by_role("status")).to_contain_text("From here on, A has a gradient too")
    panel.get_by_text("all numbers in this picture").click()
    rows = [panel.locator("details tr", has_text=name).last for name in ("W x", "B A x", "y")]
    expect(rows[-1].locator("td")).to_have_count(8)  # the table is filled after the click
    base, detour, y = ([float(text.replace("−", "-")) for text in row.locator("td").all_inner_texts()] for row in rows)
    assert np.allclose(np.add(base, detour), y)


def test_the_loss_falls_at_every_step_also_with_a_small_alpha(pages: Pages) -> None:
    panel = pages.panel(with_traits(lora("steps"), toy_rank=3, alpha=1), reduced=True)
    for _ in range(6):
        panel.get_by_role("button", name="take a step").press("Enter")
    losses = [float(text) for text in panel.locator(".facts td:nth-child(2)").all_inner_texts()]
    assert losses == sorted(losses, reverse=True)
    expect(panel.locator(".words")).to_contain_text(f"the loss has fallen from 1.23 to {losses[-1]:.2f}")


EVERY_SEVENTH_PIXEL = """c => { // its brightness, 0 to 255
    const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
    return btoa(String.fromCharCode(...data.filter((_, i) => i % 28 === 0)));
}"""


def test_the_browser_draws_the_sum_that_python_computes(pages: Pages) -> None:
    python = RankPanel("picture", rank=1)
    panel, data = pages.panel(python), python.data["picture"]
    for position, rank in ((2, 2), (20, 32), (12, 12), (0, 0)):
        move(panel, "pieces added", position)
        actual = np.frombuffer(base64.b64decode(panel.locator("canvas.sum").evaluate(EVERY_SEVENTH_PIXEL)), np.uint8)
        expected = sum_of(data, rank).ravel()[::7]
        unclipped = np.abs(expected) < 0.95 * data["limit"]
        assert np.corrcoef(actual[unclipped], expected[unclipped])[0, 1] > 0.999 if rank else np.ptp(actual) == 0
        expect(panel.locator(".big b")).to_have_text(f"{100 * data['kept'][rank][1]:.1f}%")


def test_keys_add_and_remove_pieces(pages: Pages) -> None:
    headline = (panel := pages.panel(RankPanel(), reduced=True)).locator(".big")
    expect(headline).to_contain_text("79.2%")
    panel.get_by_role("slider", name="pieces added").press("ArrowLeft")
    assert value_of(panel, "pieces added") == "rank 1, 7.6% of the energy"
    expect(headline).to_contain_text("60.6%")
    panel.get_by_role("button", name="add the next piece").press("Enter")
    expect(headline).to_contain_text("right at rank 2")
    expect(panel.get_by_role("img", name="sum of its first 2 rank-one pieces")).to_be_visible()
    panel.get_by_role("button", name="take it away").press("Enter")
    expect(panel.get_by_role("status")).to_contain_text("60.6%")
    for _ in range(3):  # the last press has nothing to take away, and the button keeps the focus
        (less := panel.locator("button[name=less]")).press("Enter")
    assert value_of(panel, "pieces added") == "rank 0, 0.0% of the energy"
    expect(less).to_be_disabled()
    expect(less).to_be_focused()


EVALUATE = """([film, points]) => points.map((point) => {
    const found = evaluate(film, point);
    const top = Array.from(found.live.subarray(found.top * MANY, found.top * MANY + MANY));
    const quick = peakOf(film, point);
    return [found.peak, top, quick.bytes, openFilm(film).scenes[found.top].act === quick.act];
})"""


def test_the_browser_computes_the_same_bytes_as_python(pages: Pages) -> None:
    page, rng = pages.open(memory("minilm")), random.Random(0)
    code = f"(given) => {{ {module('film.js')}; return ({EVALUATE})(given); }}"
    for film in [film for films in shipped().values() for film in films]:
        conditions = {name: film[name] for name in ("checkpointing", "quantized", "dtype", "device")}
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
    panel = pages.panel(MemoryPanel(model, method, card="RTX 4090", models=[model]))
    capacity, status = usable(card("RTX 4090")), panel.get_by_role("status")
    expect(status).to_be_empty()
    for position in (10, 40, 64):
        move(panel, "sequence length", position)
        setup = setup_of(model, method, batch=1, seq=integers(value_of(panel, "sequence length"))[0])
        peak = quick(model, METHODS[method], setup).peak
        expect(panel.locator(".big")).to_contain_text(binary(peak))
        expect(status).to_contain_text("fits" if peak <= capacity else "does not fit")
        longest = largest("seq", setup, lambda s: quick(model, METHODS[method], s), capacity)
        expect(panel.locator(".facts tr").last).to_contain_text(f"{longest:,}")
    assert peak > capacity
    expect(panel.locator(".picture .beyond")).to_have_count(1)
    panel = pages.panel(MemoryPanel(model, method, card="RTX 4090", models=[model], longest=False))
    for name, doubled in (("sequence length", 256), ("batch size", 8)):
        move(panel, name, 3)
        assert integers(value_of(panel, name))[0] == doubled
    expect(panel.locator(".facts tr")).to_have_count(0)


def test_a_step_that_was_measured_is_described_even_after_another_was_refused(pages: Pages) -> None:
    python = memory("minilm")
    step = {
        name: getattr(python, name)
        for name in ("model", "method", "batch", "seq", "rank", "optimizer", "checkpointing")
    }
    python.measured = step | {"film": python.shown(), "where": "on a CPU"}
    python.standing = "not measured: a real step of 65,536 tokens takes minutes"
    panel = pages.panel(python, kernel=True)
    expect(panel.locator(".standing")).to_contain_text("Measured: ")
    move(panel, "batch size", 3)
    expect(panel.locator(".standing")).to_contain_text("65,536 tokens")


def test_a_rank_beyond_the_slider_is_shown_as_given(pages: Pages) -> None:
    python = MemoryPanel("llama-3-8b", rank=500, models=["llama-3-8b"])
    panel = pages.panel(python)
    assert value_of(panel, "rank") == "rank 500"
    assert f"The peak is {panel.locator('.big b').inner_text()} at the loss" in python.describe()


def test_a_peak_in_the_embedding_is_explained_by_gradients(pages: Pages) -> None:
    for checkpointing in (False, True):
        panel = pages.panel(MemoryPanel("minilm", "full", seq=16, optimizer="sgd", checkpointing=checkpointing))
        expect(panel.locator(".title")).to_contain_text("backward pass: weights and gradients take 129 MiB")
        expect(panel.locator(".words")).to_contain_text("the layers' gradients take 41.9 MiB")
        expect(panel.locator(".words")).not_to_contain_text(re.compile("Checkpointing|activations"))


def test_sizes_on_a_narrow_panel_are_in_the_unit_of_the_axis(pages: Pages) -> None:
    picture = pages.panel(MemoryPanel("smollm2", batch=8, models=["smollm2"]), width=380).locator(".picture")
    axis, phases = (picture.locator(f"text.tick.{place}").all_text_contents() for place in ("end", "mid"))
    assert max(map(float, phases)) < max(map(float, axis))  # the update takes less than 1 GiB


def test_the_moment_follows_keys_and_drags_and_returns_to_the_peak(pages: Pages) -> None:
    panel = pages.panel(MemoryPanel("llama-3-8b", "LoRA q, v", seq=1024, models=["llama-3-8b"]), reduced=True)
    slider, peak = panel.get_by_role("slider", name="moment"), value_of(panel, "moment")
    assert peak.startswith("loss")
    slider.press("ArrowRight")
    assert value_of(panel, "moment") != peak
    slider.press("Home")
    assert "15.0 GiB" in value_of(panel, "moment")  # the weights alone
    box = box_of(panel.locator("[data-film]"))
    y = box["y"] + 100
    drag(panel, (box["x"] + 0.6 * box["width"], y), (box["x"] + 0.65 * box["width"], y))
    assert re.match(r"backward, layer \d+ of 32", value_of(panel, "moment"))
    panel.get_by_role("button", name="play the step").press("Enter")  # ends at once with reduced motion
    assert value_of(panel, "moment") == peak


def test_sliders_and_clicks_snap_to_cells_and_show_their_results(pages: Pages) -> None:
    python = sweep(view="rank")
    panel, rates, rows = pages.panel(python), python.data["rates"], len(python.data["ranks"])
    status, headline = panel.get_by_role("status"), panel.locator(".big")
    expect(status).to_be_empty()
    move(panel, "rank", python.data["ranks"].index(64))
    for lr in (5e-4, 4e-3, 1.1e-2):
        move(panel, "learning rate", rates.index(lr))
        (cell,) = [c for c in python.data["cells"] if (c["rank"], c["alpha"], c["lr"]) == (64, 16.0, lr)]
        expect(headline).to_contain_text(f"{cell['mean']:.1f}%")
        assert panel.locator(".results circle.train, .results path.ink").count() == 3
    expect(status).to_contain_text("All collapsed")
    expect(panel.locator(".results path.ink")).to_have_count(3)  # a cross for each run
    picture, height = panel.locator(".picture svg"), min(66, max(36, 330 / rows))
    y = 24 + (rows - python.data["ranks"].index(64) - 0.5) * height
    picture.click(position={"x": 46 + 0.5 * (box_of(picture)["width"] - 48) / len(rates), "y": y})  # of the lowest rate
    expect(headline).to_have_text("not tried")
    expect(panel.get_by_role("button")).to_have_text(["go to the best cell"])  # without a kernel nothing is trained
    expect(panel.locator(".doing")).to_contain_text("Run the notebook")
    assert trait(panel, "picked") == []
    panel.get_by_role("button", name="go to the best cell").press("Enter")
    expect(panel.locator(".words")).to_contain_text("the best cell of this map")


def test_a_run_that_learned_nothing_is_not_told_to_take_a_higher_rate_before_another_has_learned(pages: Pages) -> None:
    python = sweep(lr=5e-4)
    data = python.data
    data["runs"] = [run | {"state": "unlearned"} for run in data["runs"]]
    words = pages.panel(python).locator(".words")
    expect(words).to_contain_text("All learned nothing yet: the rate is too low, or too high, for 200 steps.")


def test_a_touch_picks_a_cell_but_not_if_it_scrolls_the_page(pages: Pages) -> None:
    panel = pages.panel(SweepPanel(into="nothing here", task="own.csv"), kernel=True)
    page, devtools = panel.page, panel.page.context.new_cdp_session(panel.page)
    page.evaluate("document.body.style.paddingBottom = '2000px'")
    for distances in ([], [30, 60, 90, 120]):  # upward, in pixels; the second touch would unpick the cell
        x, y = center(panel.locator(".picture svg"))
        moves = [("Move", [{"x": x, "y": y - distance}]) for distance in distances]
        for kind, points in [("Start", [{"x": x, "y": y}]), *moves, ("End", [])]:
            devtools.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
        expect(panel.get_by_role("button", name="unpick this cell")).to_be_visible()
    page.wait_for_function("scrollY > 0")
    assert len(trait(panel, "picked")) == 1


def test_a_line_appears_only_after_a_prediction(pages: Pages) -> None:
    panel = pages.panel(python := sweep(view="alpha"))
    question, title, lines, fits = (panel.locator(name) for name in (".question", ".title", ".iso", ".fits"))
    expect(question).to_contain_text("Predict")
    expect(lines).to_have_count(0)
    expect(title).to_contain_text("Which slider moves accuracy the most?")
    panel.get_by_role("radio", name="falls with α", exact=True).dispatch_event("click")
    expect(title).to_contain_text("The learning rate matters most")
    expect(lines).to_have_count(1)
    lost = python.data["lines"]["alpha"]["q,v|8"]["whole"]["lost"]
    expect(fits).to_contain_text(f"with α) loses {lost:.1f} points")
    panel.get_by_role("radio", name="falls with √α").dispatch_event("click")
    expect(fits).to_contain_text("You predicted “falls with α”")
    expect(lines).to_have_count(1)
    assert trait(panel, "guess") == {"alpha": "whole"}
    panel.get_by_role("radio", name="rate × rank").dispatch_event("click")
    expect(question).to_contain_text("Predict")  # each map asks for its own prediction
    expect(lines).to_have_count(0)
    python.question = "What moves the best rate?"  # replaces the usual question, and is then answered
    title = (panel := pages.panel(python)).locator(".title")
    expect(title).to_have_text(python.question)
    panel.get_by_role("radio", name="falls with α", exact=True).dispatch_event("click")
    expect(title).to_have_text("As α grows, the best rate falls with √α")


def test_a_finished_run_is_described_with_its_uncertainty(pages: Pages) -> None:
    python = train()
    first = python.found["sentences"][0] | {"text": "its third \x96 and best"}  # a Windows dash, which no font has
    python.found = python.found | {"sentences": [first]}
    panel = pages.panel(python)
    expect(panel.locator(".title")).to_contain_text("80.9% ± 1.7 points after 400 steps")
    expect(panel.locator(".title")).to_contain_text("Other seeds of this recipe: 79.0 to 82.0.")
    expect(panel.locator(".words")).to_contain_text("You guessed 75: 5.9 points too low.")
    expect(panel.locator(".words")).to_contain_text("Among 5 seeds of this recipe, this run is number 2.")
    expect(panel.locator(".changes")).to_contain_text("changed 9 of 50 validation answers, 6 for the better and 3 for")
    expect(panel.locator(".quoted")).to_contain_text("its third – and best")
    expect(panel.locator(".moved rect")).to_have_count(12)


def test_settings_that_stop_the_start_button_are_explained_after_a_run_too(pages: Pages) -> None:
    panel = pages.panel(train(targets=[]), kernel=True)
    expect(panel.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    expect(panel.locator(".doing")).to_contain_text("That isn’t possible. tick at least one target")


def test_an_answered_sentence_is_not_asked_again_and_an_error_is_an_answer(pages: Pages) -> None:
    python = train()
    python.answer = {"text": "a fine film", "p": python.found["sentences"][0]["p"]}
    panel = pages.panel(python, kernel=True)
    own, note = panel.get_by_role("textbox", name="Your own sentence"), panel.locator(".kernel")
    own.fill("a fine film")
    panel.page.wait_for_timeout(1_200)
    expect(panel.locator(".said")).to_contain_text("%")
    expect(note).to_be_empty()
    own.fill("a dull film")
    expect(note).to_contain_text("Waiting for the kernel")
    panel.page.locator("[data-panel]").evaluate("({ model }) => model.set('live', { error: 'x' })")
    expect(note).to_be_empty()


def test_the_margin_is_dragged_and_the_verdict_is_pythons(pages: Pages) -> None:
    python = ComparePanel()
    outcomes, margins = python.stored["against"]["full"]["LoRA r8 q,v"]["together"], python.stored["margins"]
    words = {"w": "worse", "W": "worse but within the margin"}
    panel = pages.panel(python)
    headline, grip = panel.locator(".big"), panel.locator(".forest .grip").last
    panel.locator(".forest").scroll_into_view_if_needed()
    x, y = center(grip)
    mouse = panel.page.mouse
    mouse.move(x, y)
    mouse.down()
    reached = set()
    for dx in (20, 35, 45, -30, -45):
        mouse.move(x + dx, y, steps=2)
        outcome = outcomes[margins.index(trait(panel, "margin"))]
        expect(headline).to_contain_text(words[outcome])
        assert center(grip)[0] == pytest.approx(x + dx, abs=4)
        reached.add(outcome)
    mouse.up()
    assert reached == {"w", "W"}
    for position in range(0, 60, 9):
        move(panel, "margin", position)
        expect(headline).to_contain_text(words[outcomes[position]])
    for _ in range(2):  # the verdict changes only once, so a second click moves nothing
        panel.get_by_role("button", name="where the verdict changes").click()
        assert margins.index(trait(panel, "margin")) == outcomes.index("W")


def test_close_and_equal_results_are_told_apart(pages: Pages) -> None:
    python = ComparePanel()
    close = {"each": [120.2, 120.3], "mean": 120.25, "low": 120.2, "high": 120.3}
    python.stored = python.stored | {"methods": [method | close for method in python.stored["methods"]]}
    labels = pages.panel(python).locator(".picture text.tick.end").all_text_contents()
    assert len(labels) == len(set(labels)) > 2
    equal = sweep(guess={"alpha": "root"})
    cells, runs = ([item | equal_to for item in equal.data[name]] for name, equal_to in
                   (("cells", {"mean": 100.0}), ("runs", {"value": 100.0, "state": "done"})))  # fmt: skip
    equal.data = equal.data | {"cells": cells, "runs": runs, "moves": {"q,v": {"lr": 0.0}}}
    panel = pages.panel(equal)
    expect(panel.locator(".title")).not_to_contain_text("matters")
    expect(panel.locator(".words")).not_to_contain_text("behind")


def test_a_method_and_a_rival_are_chosen_by_click(pages: Pages) -> None:
    python = ComparePanel()
    python.resample(200, count=20)
    panel = pages.panel(python)
    expect(panel.locator(".misses")).to_contain_text("of 20 intervals (crosses) miss the truth")
    row, forest = box_of(panel.locator(".forest text", has_text="all-linear")), panel.locator(".forest svg")
    forest.click(position={"x": 30, "y": row["y"] - box_of(forest)["y"] + 8})
    expect(panel.get_by_role("combobox", name="method")).to_have_value("LoRA r8 all-linear")
    expect(panel.locator(".title")).to_contain_text("LoRA r8 all-linear trains 1.46% of the parameters")
    rival = panel.get_by_role("radio", name=re.compile("^LoRA r8 q,v: trains A and B beside q, v"))
    rival.check(force=True)  # only its label is visible
    expect(panel.locator(".big")).to_contain_text("equivalent")
    expect(panel.locator(".misses")).to_contain_text("about another pair of methods")
    expect(panel.get_by_role("status")).to_contain_text("At a margin of 1.5 points it is equivalent")
    panel.get_by_role("radio", name=re.compile("^LoRA r8 all-linear")).check(force=True)  # both change places
    assert (trait(panel, "method"), trait(panel, "rival")) == ("LoRA r8 q,v", "LoRA r8 all-linear")
    move(panel, "margin", 5)  # 0.6 points: here, the number of tests matters
    expect(panel.locator(".big")).to_contain_text("undecided")
    expect(panel.locator(".words")).to_contain_text(re.compile("A single test would say equivalent.* one of 4", re.S))
