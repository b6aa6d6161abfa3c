"""The small models and tasks that training is tested with."""

from tests.training.conftest import opinions, recipe, tiny_causal, tiny_encoder, tiny_models  # noqa: F401


def on_step(see):
    """A sweep's `note` that hears of steps alone."""
    return lambda event, facts: see(facts["progress"]) if event == "step" else None
