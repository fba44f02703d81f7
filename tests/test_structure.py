"""The shape of the code: who may import whom, what stays light, what is explained, how long things get."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "workbench"

# Each layer with those that it may import; a layer may always import itself.
ALLOWED: dict[str, set[str]] = {"maths": set(), "base": set()}
for _layer, _below in {
    "models": ("maths", "base"),
    "saes": ("models",),
    "personas": ("models",),
    "decomposition": ("saes", "personas"),
    "lab": ("decomposition",),
    "labeling": ("lab",),
    "steering": ("labeling",),
    "axis": ("steering",),
    "reports": ("axis",),
    "serving": ("reports",),
    "cluster": ("reports",),
    "cli": ("serving", "cluster"),
}.items():
    ALLOWED[_layer] = set(_below).union(*(ALLOWED.get(name, set()) for name in _below))
ALLOWED["decomposition"] |= {"saes", "personas"}
ALLOWED["base"] = set()

HEAVY = {"torch", "transformers", "transformer_lens", "sae_lens", "sklearn", "pandas", "pyarrow", "scipy", "numpy", "safetensors"}
LIGHT = ("base", "cli", "models/assets.py", "models/catalogue.py", "models/hookpoints.py", "personas/traits.py",
         "saes/registry.py", "saes/published.py", "saes/search.py", "labeling/files/store.py", "__init__.py",
         "__main__.py")  # fmt: skip
NOT_LIGHT = {"base/tensors.py"}

MAX_MODULE_LINES = 350
MAX_SHORT_FUNCTION, SHORT_SHARE = 25, 0.90


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_shelf" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def light_modules() -> list[Path]:
    return [path for path in modules() if name_of(path).startswith(LIGHT) and name_of(path) not in NOT_LIGHT]


def imported(path: Path, *, only_on_import: bool = False) -> Iterator[tuple[str, int]]:
    """(absolute dotted name, line) of every import; with `only_on_import`, of those that run when the module loads."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            skipped = is_type_checking(child) or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if not (only_on_import and skipped):
                yield child
                yield from walk(child)

    for node in walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(path, node)
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def layer_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def test_a_module_imports_only_its_own_layer_and_those_above():
    for path in modules():
        layer = layer_of(path)
        if not layer:  # __init__ and __main__ see everything
            continue
        assert layer in ALLOWED, f"the layer {layer} is not in the map"
        for name, line in imported(path):
            parts = name.split(".")
            if parts[0] == "workbench" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
                assert parts[1] in ALLOWED[layer] | {layer}, f"{name_of(path)}:{line} imports {name}"


def test_nothing_imports_the_command_line():
    for path in modules():
        if layer_of(path) not in ("", "cli"):
            assert not [name for name, _ in imported(path) if name.startswith("workbench.cli")], name_of(path)


def test_light_modules_import_nothing_heavy_when_they_load():
    for path in light_modules():
        heavy = {name for name, _ in imported(path, only_on_import=True) if name.split(".")[0] in HEAVY}
        assert not heavy, name_of(path)


def test_a_module_says_what_it_is_for_and_stays_readable():
    for path in modules():
        assert ast.get_docstring(tree_of(path)), f"{name_of(path)} without a docstring"
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MAX_MODULE_LINES, name_of(path)
        plain = not text.strip() or name_of(path).endswith("__init__.py")
        assert plain or "from __future__ import annotations" in text, name_of(path)


def test_public_classes_and_functions_have_docstrings():
    for path in modules():
        for node in tree_of(path).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if public and "overload" not in map(ast.unparse, node.decorator_list):  # the words stand at the function itself
                assert ast.get_docstring(node), f"{name_of(path)}:{node.lineno} {node.name}"


def statements(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_nine_functions_in_ten_are_short():
    lengths = [
        statements(node)
        for path in modules()
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert sum(length < MAX_SHORT_FUNCTION for length in lengths) / len(lengths) >= SHORT_SHARE


def test_nothing_loads_pickles_or_seeds_globally():
    forbidden = ("import pickle", "torch.manual_seed(", "np.random.seed(", "random.seed(", "yaml.unsafe_load")
    for path in modules():
        text = path.read_text(encoding="utf-8")
        assert not [word for word in forbidden if word in text], name_of(path)
        unsafe = [line for line in text.splitlines() if "torch.load(" in line and "weights_only=True" not in line]
        assert not unsafe, name_of(path)


def test_every_name_of_the_notebook_namespace_is_defined_where_it_is_said_to_be():
    import workbench

    for name, home in workbench._HOMES.items():
        path = PACKAGE / Path(*home.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert path.exists(), f"{name}: {path}"
        defined = {getattr(node, "name", None) for node in tree_of(path).body}
        for node in tree_of(path).body:
            if isinstance(node, ast.ImportFrom):
                defined |= {alias.asname or alias.name for alias in node.names}
        assert name in defined, f"{name} is not in {home}"


def test_tests_mirror_the_package():
    others = ("notebooks", "scripts", "benchmarks", "hostile", "upgrades")
    for folder in sorted((ROOT / "tests").iterdir()):
        if folder.is_dir() and list(folder.glob("test_*.py")):
            assert (PACKAGE / folder.name).is_dir() or folder.name in others, folder.name


def test_what_pyproject_says_agrees_with_the_repository():
    import tomllib

    import workbench

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == "persona-workbench"
    assert set(project["project"]["optional-dependencies"]) == {
        "notebook", "llm", "finetune", "serve", "cluster", "docs", "tracking", "dev",
    }  # fmt: skip
    assert f"version: {workbench.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in constraints
    for source in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert (ROOT / source).is_dir(), source


def test_every_imported_distribution_is_a_declared_dependency():
    import sys
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {requirement.split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip().lower() for requirement in declared}
    names |= {name.replace("-", "_") for name in names}
    imports_as = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
    names |= {imports_as.get(name, name) for name in names}
    optional = {"IPython"}  # asked for only where it is loaded already
    for path in modules():
        for name, line in imported(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in ("workbench", "") or top in optional:
                continue
            assert top.lower() in names, f"{name_of(path)}:{line} imports {top}"
