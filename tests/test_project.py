"""The project as a whole: import order, cost of import, docstrings, files, packaging."""

import ast
import importlib.metadata
import itertools
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxd2l"

# Who may import whom: a module imports from its own line and from the lines above it.
ORDER = [
    {"geometry"},
    {"records", "checks"},
    {"ops"},
    {"layers"},
    {"models"},
    {"generation"},
    {"analysis", "checkpoint", "data", "interop", "optim", "parallel", "plot", "train"},
    {"recipes", "testing", "text_recipes"},
    {"jaxd2l"},  # the package's own __init__: what a first-time user types
    {"commands"},
    {"trained_commands"},
    {"cli"},
    {"__main__"},
]
# Imported inside the function that needs them, so that `import jaxd2l` stays cheap.
LATE = {
    *("matplotlib", "sklearn", "PIL", "pandas", "optuna", "torch", "flax", "tqdm", "orbax"),
    "hypothesis",
}
OUTSIDE = {"tests", "experiments", "scripts"}
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "__import__"}

MAX_LINES = 400  # neither blank nor docstring
# Longer files. Split them when they are next changed; add none.
LONG = {
    "tests/test_checkpoint.py",
    "tests/test_cli.py",
    "tests/test_layers.py",
    "tests/test_losses.py",
    "tests/test_normalization.py",
}
# Functions whose docstring has no example. Keep these short, and the last one shrinking.
HELPERS = {  # used by other modules of the library, not by its users
    "jaxd2l.checks.assert_spatial_shape",
    "jaxd2l.ops.color.at_least_float32",
    "jaxd2l.ops.conv.add_bias",
    "jaxd2l.ops.conv.check_arrays",
    "jaxd2l.ops.conv.output_sizes",
    "jaxd2l.ops.sampling.check_dtype",
    "jaxd2l.ops.sampling.sample_dtype",
}
NEED_FILES = {  # mean nothing without files or a terminal: see their tests and the README
    "jaxd2l.checkpoint.file.load",
    "jaxd2l.checkpoint.file.load_flat",
    "jaxd2l.checkpoint.file.load_network",
    "jaxd2l.checkpoint.file.read_header",
    "jaxd2l.checkpoint.file.read_metadata",
    "jaxd2l.checkpoint.file.verify",
    "jaxd2l.checkpoint.folder.drop_after",
    "jaxd2l.checkpoint.folder.latest",
    "jaxd2l.checkpoint.folder.save_step",
    "jaxd2l.checkpoint.folder.steps",
    "jaxd2l.cli.main",
    "jaxd2l.commands.load_data",
    "jaxd2l.commands.models",
    "jaxd2l.commands.summary",
    "jaxd2l.commands.train",
    "jaxd2l.trained_commands.evaluate",
    "jaxd2l.trained_commands.generate",
    "jaxd2l.trained_commands.predict",
    "jaxd2l.data.cifar.load_cifar10_folder",
    "jaxd2l.data.idx.load_idx_folder",
    "jaxd2l.data.idx.read_idx",
    "jaxd2l.data.images.load_image_folder",
    "jaxd2l.data.images.read_image",
    "jaxd2l.data.sources.load",
    "jaxd2l.data.tabular.read_csv",
}


def project_files() -> list[Path]:
    """The files of the project: what git tracks, or everything that is not a product."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(ROOT), "ls-files", "-z"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [ROOT / n for n in listed.split("\0") if n and (ROOT / n).is_file()]
    skipped = {"build", "dist", "runs", "__pycache__"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(p.startswith(".") or p in skipped for p in path.relative_to(ROOT).parts[:-1])
    ]


def sources(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def name_of(path: Path) -> str:
    """ "jaxd2l.ops.conv" for jaxd2l/ops/conv.py, "jaxd2l.ops" for its __init__."""
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def group_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imports(tree: ast.Module, module: str, is_package: bool):
    """All imports of a module: (imported module, name or None, line, inside a function)."""

    def visit(node: ast.AST, late: bool):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, None, child.lineno, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parents = module.split(".")
                    parents = parents[: len(parents) - child.level + is_package]
                    base = ".".join([*parents, base] if base else parents)
                yield from ((base, alias.name, child.lineno, late) for alias in child.names)
            else:
                inner = late or isinstance(
                    child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
                )
                typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                yield from visit(child, inner or typing_only)

    yield from visit(tree, False)


def breaches(path_name: str, text: str, is_package: bool = False) -> list[str]:
    """What a module of the package does against the rules for imports, one line each."""
    ranks = {group: rank for rank, groups in enumerate(ORDER) for group in groups}
    group = group_of(path_name)
    found = []
    if group not in ranks:
        return [f"{path_name}: {group} has no place in ORDER"]
    tree = ast.parse(text)
    for base, name, line, late in imports(tree, path_name, is_package):
        top = base.split(".")[0]
        where = f"{path_name}:{line}"
        if top in OUTSIDE:
            found.append(f"{where}: imports {top}, which is not part of the library")
        if top in LATE and not late:
            found.append(f"{where}: imports {top} at the top; import it where it is used")
        if top == "chex" and path_name != "jaxd2l.checks":
            found.append(f"{where}: imports chex; only jaxd2l.checks does")
        if top in UNSAFE_MODULES:
            found.append(f"{where}: imports {top}, which can run code from a file")
        if group == "geometry" and top in {"jax", "jaxlib", "numpy", "scipy", "optax"}:
            found.append(f"{where}: geometry imports {top}")
        if top != "jaxd2l":
            continue
        target = base
        if base == "jaxd2l" and name is not None:
            if name == "__version__":
                continue
            if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file():
                target = f"jaxd2l.{name}"
        other = group_of(target)
        if other not in ranks:
            found.append(f"{where}: {other} has no place in ORDER")
        elif ranks[other] > ranks[group]:
            found.append(f"{where}: {group} imports {other}, which comes after it")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
            found.append(f"{path_name}:{node.lineno}: calls {node.func.id}")
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                found.append(f"{path_name}:{node.lineno}: allows pickles")
    return found


def in_fresh_python(code: str, *options: str) -> str:
    """What `code` prints in a new interpreter that sees this checkout and nothing of pytest."""
    prefix = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run(
        [sys.executable, *options, "-c", prefix + code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Imports


@pytest.mark.smoke
def test_imports_go_one_way_and_nothing_unsafe_is_used():
    found = []
    for path in sources(PACKAGE):
        found += breaches(name_of(path), path.read_text("utf-8"), path.name == "__init__.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "code", "told"),
    [
        ("jaxd2l.ops.conv", "from jaxd2l.layers import Dense", "ops imports layers"),
        ("jaxd2l.ops.conv", "from jaxd2l import layers", "ops imports layers"),
        ("jaxd2l.ops.conv", "from ..layers.core import init", "ops imports layers"),
        ("jaxd2l.ops.conv", "from .. import layers", "ops imports layers"),
        ("jaxd2l.ops.conv", "def f():\n    import jaxd2l.train", "ops imports train"),
        ("jaxd2l.layers.core", "import jaxd2l", "layers imports jaxd2l"),
        ("jaxd2l.layers.core", "from jaxd2l import init", "layers imports jaxd2l"),
        ("jaxd2l.geometry", "import numpy as np", "geometry imports numpy"),
        ("jaxd2l.geometry", "import jaxd2l.records", "geometry imports records"),
        ("jaxd2l.train.loop", "if True:\n    import tqdm", "imports tqdm at the top"),
        ("jaxd2l.data.x", "class A:\n    from PIL import Image", "imports PIL at the top"),
        ("jaxd2l.testing.x", "import hypothesis.strategies", "imports hypothesis at the top"),
        ("jaxd2l.ops.conv", "def f():\n    import chex", "imports chex"),
        ("jaxd2l.data.x", "def f():\n    import pickle", "can run code"),
        ("jaxd2l.data.x", "from tests.conftest import key", "not part of the library"),
        ("jaxd2l.data.x", "y = eval('1')", "calls eval"),
        ("jaxd2l.data.x", "y = np.load(f, allow_pickle=flag)", "allows pickles"),
        ("jaxd2l.utils", "", "utils has no place"),
    ],
)
def test_the_import_rules_notice_a_breach(module, code, told):
    assert told in "\n".join(breaches(module, code))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("jaxd2l.ops.conv", "from jaxd2l.geometry import Window\nfrom .linear import dense"),
        ("jaxd2l.checkpoint", "from jaxd2l import __version__"),
        ("jaxd2l.plot", "def f():\n    import matplotlib.pyplot"),
        ("jaxd2l.plot", "if TYPE_CHECKING:\n    import matplotlib.pyplot"),
        ("jaxd2l.cli", "import jaxd2l\nfrom jaxd2l import models"),
        ("jaxd2l.data.x", "y = np.load(f, allow_pickle=False)"),
    ],
)
def test_the_import_rules_accept_what_is_right(module, code):
    assert breaches(module, code) == []


def test_every_module_imports_without_warnings_and_without_the_late_libraries():
    names = [name_of(p) for p in sources(PACKAGE) if p.name != "__main__.py"]
    loaded = in_fresh_python(
        f"for name in {names!r}: __import__(name)\nprint(*sys.modules)", "-W", "error"
    ).split()
    assert set(names) <= set(loaded)
    assert LATE & {n.split(".")[0] for n in loaded} == set()


def test_geometry_alone_needs_no_jax():
    code = "import types\nsys.modules['jaxd2l'] = package = types.ModuleType('jaxd2l')\n"
    code += f"package.__path__ = [{str(PACKAGE)!r}]\nimport jaxd2l.geometry as g\n"
    code += "print(g.conv_output_size(28, 5), 'jax' in sys.modules or 'numpy' in sys.modules)"
    assert in_fresh_python(code) == "24 False"


def test_import_costs_little_more_than_jax():
    def seconds(module: str) -> float:
        began = time.perf_counter()
        in_fresh_python(f"import {module}")
        return time.perf_counter() - began

    best = {"jax": float("inf"), "jaxd2l": float("inf")}
    for _ in range(8):  # the machine may be busy: the fastest of several counts
        best = {module: min(value, seconds(module)) for module, value in best.items()}
        if best["jaxd2l"] < 1.5 * best["jax"]:
            return
    pytest.fail(f"import jaxd2l takes {best['jaxd2l']:.2f} s, import jax {best['jax']:.2f} s")


# Files


def assert_only_exceptions(found: Iterable[str], exceptions: Iterable[str], told: str):
    found, exceptions = set(found), set(exceptions)
    lines = [f"{name} {told}" for name in sorted(found - exceptions)]
    lines += [f"{name} is no longer an exception" for name in sorted(exceptions - found)]
    assert not lines, "\n".join(lines)


def exported(path: Path) -> set[str] | None:
    """The names that the package around a module passes on; None if it passes on whole modules."""
    init = path.parent / "__init__.py"
    if path.parent == PACKAGE or path == init:
        return None
    tree = ast.parse(init.read_text("utf-8"))
    found = imports(tree, name_of(init), is_package=True)
    return {name for base, name, _, _ in found if base.count(".") > 1 and name} or None


def public_functions(path: Path) -> list[ast.FunctionDef]:
    """Functions for users: without an underscore, and passed on where a package picks names."""
    names = exported(path)
    return [
        node
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and (names is None or node.name in names)
    ]


def test_every_public_function_has_a_docstring_with_an_example():
    lacking, seen = set(), 0
    for path in sources(PACKAGE):
        for function in public_functions(path):
            seen += 1
            if ">>>" not in (ast.get_docstring(function) or ""):
                lacking.add(f"{name_of(path)}.{function.name}")
    assert seen > 150
    assert_only_exceptions(lacking, HELPERS | NEED_FILES, "has no example in its docstring")


def test_every_module_and_public_class_has_a_docstring():
    lacking = []
    for path in sources(PACKAGE):
        tree = ast.parse(path.read_text("utf-8"))
        named = [(name_of(path), tree)] + [
            (f"{name_of(path)}.{node.name}", node)
            for node in tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ]
        lacking += [name for name, node in named if not ast.get_docstring(node)]
    assert_only_exceptions(lacking, (), "has no docstring")


def code_lines(text: str) -> int:
    """Lines that are neither blank nor part of a docstring."""
    documentation = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            documentation |= set(range(first.lineno, first.end_lineno + 1))
    return sum(
        bool(line.strip()) and number not in documentation
        for number, line in enumerate(text.splitlines(), 1)
    )


def test_files_stay_readable_in_one_sitting():
    assert code_lines('"""One\n\ntwo."""\n\nx = 1\ndef f():\n    "three"\n    return x\n') == 3
    lengths = {
        path.relative_to(ROOT).as_posix(): code_lines(path.read_text("utf-8"))
        for folder in ("jaxd2l", "tests", "scripts", "experiments")
        for path in sources(ROOT / folder)
    }
    too_long = {name for name, lines in lengths.items() if lines > MAX_LINES}
    assert_only_exceptions(too_long, LONG, f"has more than {MAX_LINES} lines of code: split it")


def test_no_file_speaks_of_one_machine():
    places = [f"/{name}/" for name in ("tmp", "work", "root", "home", "Users")]
    places += [".." + "/shared", "pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org"]
    found = []
    for path in project_files():
        if path.suffix in {".npz", ".png", ".gz", ".safetensors"} or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {place}" for place in places if place in line
            ]
    assert not found, "\n".join(found)


# Packaging


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / ".ci" / name).read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in pairs}


def requirements() -> dict[str, str]:
    """{package: lowest version} over the dependencies and all extras."""
    project = pyproject()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    lowest: dict[str, str] = {}
    for line in itertools.chain(*groups):
        if line.startswith("jaxd2l["):
            continue
        match = re.fullmatch(r"([A-Za-z0-9-]+)(?:\[\w+\])?>=([0-9.]+)", line)
        assert match, f"{line}: wanted a lower bound and nothing else (no upper caps)"
        package, version = match.groups()
        assert lowest.setdefault(package, version) == version, f"{package} has two lower bounds"
    return lowest


def numbers(version: str) -> tuple[int, ...]:
    """The release numbers without trailing zeros: "2.0.0" and "2.0" are equal."""
    parts = [int(n) for n in re.match(r"\d+(\.\d+)*", version)[0].split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


@pytest.mark.smoke
def test_version_has_one_source_and_works_from_a_plain_checkout():
    assert pyproject()["project"]["dynamic"] == ["version"]
    assert pyproject()["tool"]["hatch"]["version"]["path"] == "jaxd2l/__init__.py"
    text = (PACKAGE / "__init__.py").read_text("utf-8")
    (version,) = re.findall(r'^__version__ = "(\d+\.\d+\.\d+(?:\.dev\d+|rc\d+)?)"$', text, re.M)
    assert in_fresh_python("import jaxd2l; print(jaxd2l.__version__)") == version


def test_the_extras_are_those_promised_and_dependencies_have_no_upper_caps():
    extras = pyproject()["project"]["optional-dependencies"]
    own = {"plot", "examples", "pandas", "search", "test", "dev"}
    assert set(extras) == own | {"cuda12", "cuda13", "tpu"}
    assert {"jax", "numpy", "optax", "chex", "flax"} <= set(requirements())
    for line in extras["cuda12"] + extras["cuda13"] + extras["tpu"]:
        extra = re.search(r"\[(\w+)\]", line)[1]
        assert extra in importlib.metadata.metadata("jax").get_all("Provides-Extra")


def test_the_lowest_versions_of_the_ci_are_those_of_pyproject():
    lowest = pins("constraints-lowest.txt")
    developer_only = {"ruff", "mypy", "build", "pre-commit"}
    for package, bound in requirements().items():
        if package not in developer_only:
            assert numbers(lowest[package]) == numbers(bound), package
    assert lowest["jaxlib"] == lowest["jax"]


def test_the_exact_versions_of_the_ci_cover_pyproject():
    exact = pins("constraints.txt")
    for package, bound in requirements().items():
        assert numbers(exact[package]) >= numbers(bound), package
    assert exact["jaxlib"] == exact["jax"]


def test_ci_runs_the_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    for text in (script, readme):
        assert "python -m pip install -" in text
        assert "-e '.[test]'" in text
    assert "python -m pytest" in readme
    assert "-m pytest" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_ci_script_is_valid_bash():
    done = subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.smoke
def test_the_wheel_will_hold_the_library_and_its_types_only():
    wheel = pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["jaxd2l"]
    assert (PACKAGE / "py.typed").is_file()
    tests = [p for p in sources(PACKAGE) if p.name.startswith("test") or "tests" in p.parts[-2:]]
    assert tests == []
