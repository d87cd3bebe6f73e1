"""The house plan, held: what is installed, who imports whom, and what works without what."""

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import headatlas
import pytest

ROOT = Path(headatlas.__file__).resolve().parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("probes", "circuits", "dashboards", "data", "kernels")
DOWNHILL = {
    "kernels": set(),
    "data": set(),
    "probes": {"kernels", "data"},
    "circuits": {"probes", "kernels", "data"},
    "dashboards": {"data"},
}
VENDORED = {"build", "dist", "tests", "benchmarks"}


def sources():
    """Every Python file that is installed."""
    return sorted(path for folder in (ROOT, *map(ROOT.joinpath, ROOMS)) for path in
                  (folder.glob("*.py") if folder == ROOT else folder.rglob("*.py")))  # fmt: skip


def place(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """(dotted name inside headatlas, enclosing definition) of every import of ours in a file, relative or not."""
    tree = ast.parse(path.read_text())
    package = path.relative_to(ROOT).parent.parts
    found = []

    def visit(node, inside):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside = (*inside, node.name)
        if isinstance(node, ast.Import):
            found.extend((alias.name[10:], inside) for alias in node.names if alias.name.startswith("headatlas."))
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package[: len(package) - node.level + 1]
                assert len(package) >= node.level - 1, f"{place(path)} imports above the package"
                module = ".".join((*base, *filter(None, [module])))
            elif module == "headatlas" or module.startswith("headatlas."):
                module = module[10:]
            else:
                module = None
            if module is not None:
                rooms = [module] if module else [alias.name for alias in node.names]
                found.extend((name, inside) for name in rooms)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, ())
    return [(name, ".".join(inside)) for name, inside in found]


def test_the_list_of_packages_is_the_folders_on_disk():
    """A folder that is not listed is not installed; a listed one without files breaks `pip install` in a fresh clone."""
    on_disk = {
        ".".join(("headatlas", *path.relative_to(ROOT).parent.parts))
        for path in sources()
        if "__pycache__" not in path.parts
    }
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(on_disk)
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {"headatlas": "."}


def test_folders_at_the_top_are_the_five_rooms():
    holding = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py")} - VENDORED
    assert holding <= set(ROOMS)


def test_the_rooms_are_namespace_folders():
    """With an __init__.py, a checkout as current directory hides the package that transformers imports as `kernels`."""
    assert [place(path) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")] == []
    assert (ROOT / "__init__.py").exists()


def test_no_file_is_a_drawer_for_everything():
    bad = {"utils", "util", "helpers", "helper", "common", "core", "misc"}
    assert [place(path) for path in sources() if path.stem in bad] == []
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.stem in bad]
    assert [place(path) for path in tests] == []


def test_imports_run_downhill():
    wrong = []
    for path in sources():
        room = place(path).split("/")[0]
        if room not in ROOMS:
            continue
        for name, inside in imports(path):
            target = name.split(".")[0]
            if target != room and target not in DOWNHILL[room]:
                wrong.append(f"{place(path)} imports {name} in {inside or 'the module'}")
    assert wrong == []


def test_imports_inside_the_package_are_relative():
    """An absolute one would load the package twice where a checkout has another name."""
    wrong = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong += [
                f"{place(path)}:{node.lineno}" for name in names if (name or "").split(".")[0] in ("headatlas", *ROOMS)
            ]
    assert wrong == []


def test_kernels_stand_on_torch_and_triton_alone():
    found = set()
    for path in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
    assert found - set(sys.stdlib_module_names) - {"__future__"} <= {"torch", "triton"}


def python(code, *, without=(), cwd):
    """stdout of a fresh interpreter in which importing any of `without` fails."""
    blocker = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {set(without) or {''}!r}:\n"
        "            raise ModuleNotFoundError(f'{name} is blocked', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )
    ended = subprocess.run([sys.executable, "-c", blocker + code], capture_output=True, text=True, check=False, cwd=cwd)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_import_headatlas_imports_nothing_heavy(tmp_path):
    code = "import headatlas\nprint(*sorted(sys.modules))"
    loaded = {name.split(".")[0] for name in python(code, cwd=tmp_path).split()}
    assert not loaded & {"torch", "pandas", "numpy", "pyarrow", "transformers", "plotly", "dash", "rich"}


def test_the_overview_needs_no_torch(tmp_path):
    code = "from headatlas.__main__ import main\nsys.exit(main(['--help']))"
    heavy = ("torch", "pandas", "numpy", "transformers", "plotly", "dash", "rich", "pyarrow")
    assert "headatlas measure organism:pico-lm" in python(code, without=heavy, cwd=tmp_path)


def test_help_of_the_reading_verbs_needs_no_torch(tmp_path):
    for verb in ("show", "data", "probes", "measure", "look", "models", "serve", "train"):
        code = f"from headatlas.__main__ import main\nmain(['{verb}', '--help'])"
        assert f"usage: headatlas {verb}" in python(code, without=("torch", "transformers"), cwd=tmp_path)


def test_the_measuring_path_needs_no_dashboard(tmp_path):
    code = "import headatlas.probes.measure, headatlas.probes.verbs, headatlas.probes.look\nprint('fine')"
    without = ("duckdb", "plotly", "dash", "dash_mantine_components", "dash_ag_grid", "transformer_lens", "IPython")
    assert python(code, without=without, cwd=tmp_path) == "fine\n"


def test_the_bench_needs_no_dashboard_and_no_other_workbench(tmp_path):
    code = """
from dataclasses import replace
from headatlas.kernels import bench as kernels
from headatlas.probes import bench
from headatlas.probes.random_models import RANDOM_MODELS
bench.find_spec = lambda name: None
tiny = replace(RANDOM_MODELS["llama-8b"], layers=2, heads=4, kv_heads=2, vocabulary=60, feed_forward=40)
RANDOM_MODELS["llama-8b"] = tiny
made = kernels.providers(kernels.SIZES["cpu"], 64) | bench.model_providers("model", "llama-8b", 16, 70)
for name, one in made.items():
    if "compiled" not in name:
        one.make()()
print(len(made) > 10)
"""
    without = ("duckdb", "plotly", "dash", "dash_mantine_components", "dash_ag_grid", "transformer_lens", "IPython")
    assert python(code, without=without, cwd=tmp_path) == "True\n"


def test_reading_a_store_needs_no_torch(tmp_path):
    code = "from headatlas.data.store import open_store\nopen_store('runs', create=True).runs()\nprint('fine')"
    assert python(code, without=("torch", "transformers"), cwd=tmp_path) == "fine\n"


def test_pages_over_stored_results_need_no_torch(tmp_path):
    code = "import headatlas.dashboards.app\nprint('fine')"
    assert python(code, without=("torch", "transformers", "transformer_lens"), cwd=tmp_path) == "fine\n"


def test_works_from_a_checkout_as_current_directory():
    """`kernels` must go on meaning Hugging Face's package, or nothing, to transformers."""
    code = "import transformers, headatlas\nfrom transformers import LlamaConfig\nprint(headatlas.load.__module__)"
    assert python(code, cwd=ROOT) == "headatlas.probes.loading\n"


@pytest.mark.parametrize("name", headatlas.__all__)
def test_every_public_name_is_where_the_table_says(name):
    module = import_module(f"headatlas.{headatlas._ROOMS[name]}")
    assert getattr(headatlas, name) is getattr(module, name)


def test_public_names_are_listed_and_hide_no_folder():
    assert set(headatlas.__all__) <= set(dir(headatlas))
    assert not set(headatlas.__all__) & {path.name for path in ROOT.iterdir() if path.is_dir()}
    with pytest.raises(AttributeError, match=r"headatlas has no 'mesure'; it offers .*measure"):
        _ = headatlas.mesure
    tree = ast.parse((ROOT / "__init__.py").read_text())
    typed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.If) for inner in node.body
             if isinstance(inner, ast.ImportFrom) for alias in inner.names}  # fmt: skip
    assert typed == set(headatlas.__all__)


def test_every_file_that_is_no_code_is_package_data():
    """Texts, organisms and assets on disk are in the built package; the README's pictures are not."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    packed = set()
    for package, globs in patterns.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in globs:
            packed |= {path for path in folder.glob(pattern) if path.is_file()}
    other = {
        path for room in ROOMS for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and not {"__pycache__", "screenshots"} & set(path.parts)
    }  # fmt: skip
    assert sorted(map(place, other - packed)) == []
    assert {"data/text/essays.txt", "data/text/code.txt", "data/text/dialogue.txt"} <= set(map(place, packed))
    assert {"dashboards/assets/headatlas.css", "dashboards/assets/headatlas.js"} <= set(map(place, packed))


def test_organisms_ship_with_all_their_files():
    from headatlas.data.organisms.shelf import SHELF, organisms

    for name in organisms():
        files = {path.name for path in (SHELF / name).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "certificate.json"} <= files


def test_the_version_is_the_project_s():
    assert headatlas.__version__ == PROJECT["project"]["version"]


def test_what_is_imported_is_declared():
    """Every third-party module that the package imports is a dependency, part of one, or an extra."""
    names = {
        requirement.split(">")[0].split("=")[0].strip().lower() for requirement in PROJECT["project"]["dependencies"]
    }
    inside = {"sklearn", "scipy", "flask", "werkzeug", "huggingface_hub"}  # of scikit-learn, dash, transformers
    provided = {name.replace("-", "_") for name in names} | inside
    optional = {"triton", "PIL", "datasets", "duckdb", "IPython"}
    missing = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                top = module.split(".")[0]
                if top not in sys.stdlib_module_names and top not in provided | optional | {"__future__", "headatlas"}:
                    missing.add(f"{top} in {place(path)}")
    assert sorted(missing) == []
