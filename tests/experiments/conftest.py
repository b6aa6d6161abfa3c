"""What the tests of sweeps share."""


def on_step(see):
    """A sweep's `note` that hears of steps alone."""
    return lambda event, facts: see(facts["progress"]) if event == "step" else None
