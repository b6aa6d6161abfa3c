"""No module imports itself by way of others: not at the top, not inside a function, not for types alone."""

from graphlib import TopologicalSorter

import grimp

PACKAGES = {"lora_lab", "lora_course"}  # their public names, looked up when used, are no imports


def test_no_module_imports_itself_by_way_of_others():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules - PACKAGES}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # names a circle
