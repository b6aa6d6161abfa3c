from lora_course import checks

V, L, H = 128_256, 32, 4096  # Llama 3 8B: vocabulary size, layers, hidden size
FIXED = 5.39 * 2**30 + 160 * 2**20
LONGEST = {"T4 16 GB": 4616, "RTX 3060 12 GB": 2897, "L4 24 GB": 8970, "RTX 4090 24 GB": 9772}


def peak(tokens):
    return FIXED + tokens * (2 * L * H + 12 * V)


RIGHT = [
    ("peak", (peak,)),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4600)),
    *(("longest_row", ("QLoRA", True, "adamw", 1, seq, card)) for card, seq in LONGEST.items()),
]
WRONG = [
    ("peak", (lambda t: FIXED + t * (2 * L * H + 4 * V),), "one table"),
    ("peak", (lambda t: FIXED + t * (2 * L * H + 6 * V),), "fp32"),
    ("peak", (lambda t: t * 12 * V,), "logits alone"),
    ("peak", (lambda t: FIXED + t * 2 * L * H,), "logits are missing"),
    ("peak", (lambda t: FIXED + t * (4 * L * H + 12 * V),), "2 bytes per number"),
    ("peak", (lambda t: t * (2 * L * H + 12 * V),), "even a short text needs both"),
    ("peak", (lambda t: 5.39 * 2**30 + t * (2 * L * H + 12 * V),), "optimizer is missing"),
    ("peak", (lambda t: FIXED + 2 * L * H + 12 * V,), "multiply by tokens"),
    ("peak", (lambda t: peak(t) / 2**30,), "not GiB"),
    ("peak", (lambda t: FIXED + t * (L * H + 12 * V),), "saves takes 2 bytes"),
    ("peak", (lambda t: peak(t) - FIXED + 5.39e9 + 160e6,), "GiB has 2**30"),
    ("peak", (lambda t: FIXED * t,), "for each token"),
    *(("longest_row", ("QLoRA", True, "adamw", 1, seq + 1, card), "more than") for card, seq in LONGEST.items()),
    ("longest_row", ("full fine-tuning", True, "sgd", 1, 64), "trains every weight"),
    ("longest_row", ("LoRA q, v", True, "adamw", 1, 512), "no text is short enough"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4617), "at the peak (the loss)"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4682), "leaves out about 1%"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 5000), "the peak includes weights"),
    ("longest_row", ("QLoRA", False, "adamw", 1, 4600), "activations 2"),
    ("longest_row", ("QLoRA", False, "adamw", 1, 1121), "without checkpointing"),
    ("longest_row", ("QLoRA", True, "adamw", 2, 2300), "2 texts share"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4096), "only the text is too short"),
    ("longest_row", ("LoRA q, v", True, "adamw", 1, 4096, "RTX 4090 24 GB"), "in 4 bits"),
    ("longest_row", ("lora", True, "adamw", 1, 4600), "method must be one of"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 8), "at least 32"),
    ("longest_row", ("QLoRA", "no", "adamw", 1, 4600), "True or False"),
]


def test_hint_is_for_the_first_wrong_setting():
    assert "solve" in checks.check_longest_row("QLoRA", True, "adamw", 1, 4682).hint
    assert "weights" in checks.check_longest_row("full", True, "adamw", 1, 64).hint
    assert "checkpointing" in checks.check_longest_row("QLoRA", False, "adamw", 1, 4600).hint
    assert "second text" in checks.check_longest_row("QLoRA", True, "adamw", 2, 2300).hint
