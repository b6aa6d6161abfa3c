"""The small models and tasks that training is tested with."""

from tests.training.conftest import opinions, recipe, tiny_causal, tiny_encoder, tiny_models  # noqa: F401
