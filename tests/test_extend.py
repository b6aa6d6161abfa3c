import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from lora_lab import params
from lora_lab.methods import REGISTRY
from tests.conftest import tiny
from tests.methods import test_every_method as every

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def readme(tmp_path) -> ModuleType:
    """The README's module; its method is unregistered afterwards."""
    section = README.read_text().partition("## Extend")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.strip().splitlines()) <= 40
    file = tmp_path / "norm_scale.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("norm_scale", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del REGISTRY["norm-scale"]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_method_of_the_readme_passes_the_tests_of_every_method(readme, kind, tmp_path, monkeypatch):
    method = readme.NormScale()
    monkeypatch.setitem(every.METHODS, method.name, method)
    every.test_attach_train_save_load_disable_detach(method.name, kind, tmp_path / "adapter")
    assert method.can_pack
    every.test_pack_trains_as_alone_and_can_be_disabled(method.name, kind)
    assert params(tiny(kind), method).trainable == 5 * 32
