"""A panel that is watched, as a fixture."""

from tests.widgets.conftest import watched  # noqa: F401
