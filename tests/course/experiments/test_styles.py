import json

from hypothesis import given
from hypothesis import strategies as st

from lora_course.experiments.styles import misfit

VALID = {"topic": "sky", "answer": "Blue.", "steps": ["look up"], "certainty": "high"}
VALUES = st.sampled_from(["x", "", None, 3, [], [""], ["x"], [3], "high", "low", "sure"])


@given(st.dictionaries(st.sampled_from([*VALID, "more"]), VALUES))
def test_misfit_accepts_only_the_schema(changes):
    value = VALID | changes
    valid = (
        set(value) == set(VALID)
        and all(isinstance(value[key], str) and value[key] for key in ("topic", "answer"))
        and isinstance(value["steps"], list)
        and all(isinstance(step, str) and step for step in value["steps"])
        and value["certainty"] in ("high", "medium", "low")
    )
    assert (misfit(json.dumps(value)) == "") == valid
    assert "not JSON" in misfit("[" * 10**5)  # nested too deeply for the parser
