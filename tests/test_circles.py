"""Test that no module imports itself through others, not even inside functions or for types."""

from graphlib import TopologicalSorter

import grimp

PACKAGES = {"lora_lab", "lora_course"}  # they look up their public names on use, which is no import


def test_no_circular_imports():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules - PACKAGES}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # raises CycleError
