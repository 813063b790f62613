"""The import rules of the design, held on the syntax tree of every module.

The house has floors, and a module imports only from its own room or from floors below. Each rule is a
function from modules to violations. It runs over dwh_assets, and over small trees that break it: a rule that
stopped seeing anything would be noticed.
"""

import ast
import functools
import importlib
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyiceberg
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "dwh_assets"

# Top to bottom. Rooms in one set know each other; rooms side by side on a floor do not.
# The package itself is the list of public names: it sees the library, and only Dagster's side and the command
# may use it (a library module that did would load the whole house).
FLOORS: tuple[tuple[frozenset[str], ...], ...] = (
    (frozenset({"definitions", "defs", "components", "orchestration"}), frozenset({"cli"})),
    (frozenset({"__init__"}),),
    (frozenset({"agent"}),),
    (frozenset({"versioning"}),),
    (frozenset({"maintenance"}), frozenset({"warehouses"})),
    (frozenset({"iceberg"}),),
    (frozenset({"ledger", "config", "errors"}),),
)
KNOWS_DAGSTER = frozenset({"definitions", "defs", "components", "orchestration"})
KNOWS_PRIVATE_NAMES = f"{PACKAGE}.iceberg.commit"
LONGEST_MODULE = 700


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The part of the house it lies in: `iceberg` for dwh_assets.iceberg.commit."""
        return self.name.split(".")[1] if "." in self.name else "__init__"


@dataclass(frozen=True)
class Import:
    """One imported name, in full: `from a.b import c` imports a.b.c."""

    line: int
    target: str


@dataclass(frozen=True, order=True)
class Violation:
    """A rule broken at a place."""

    module: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.message}"


Rule = Callable[[list[Module]], Iterator[Violation]]


def read_package(root: Path) -> list[Module]:
    """Parses every module of the package that lies in a folder."""
    return [_parse(root, path) for path in sorted((root / PACKAGE).rglob("*.py"))]


def _parse(root: Path, path: Path) -> Module:
    source = path.read_text(encoding="utf-8")
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(source, str(path)), source.count("\n"))


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module, also those inside functions and those for the type checker only."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            yield from (Import(node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            yield from (Import(node.lineno, text) for text in _texts(node.args[:1]))


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, node.module] if node.module else parents)


def _called(node: ast.Call) -> str:
    return _name(node.func)


def _name(node: ast.AST) -> str:
    """The last part of a dotted name; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


# --- Floors ---


def floor_order(modules: list[Module]) -> Iterator[Violation]:
    """A module imports from its own room and from floors below."""
    rooms = {module.room for module in modules}
    for module in modules:
        here = _place(module.room)
        if here is None:
            yield Violation(module.name, 1, f"`{module.room}` is on no floor of the house: see FLOORS")
            continue
        for imported in imports(module):
            room = _room_of(imported.target, rooms)
            there = _place(room) if room else None
            if there and there != here and there[0] <= here[0]:
                where = "beside" if there[0] == here[0] else "above"
                yield Violation(
                    module.name, imported.line, f"imports {imported.target}, from a floor {where} it"
                )


def _place(room: str) -> tuple[int, int] | None:
    return next(
        (
            (floor, side)
            for floor, sides in enumerate(FLOORS)
            for side, members in enumerate(sides)
            if room in members
        ),
        None,
    )


def _room_of(target: str, rooms: set[str]) -> str | None:
    """The room an import leads to; a public name of the package leads to the package itself."""
    root, _, rest = target.partition(".")
    if root != PACKAGE:
        return None
    room = rest.partition(".")[0]
    return room if room in rooms or _place(room) else "__init__"


def dagster_at_the_top(modules: list[Module]) -> Iterator[Violation]:
    """Only definitions, defs, components and orchestration know Dagster."""
    for module in modules:
        if module.room in KNOWS_DAGSTER:
            continue
        for imported in imports(module):
            root = imported.target.partition(".")[0]
            if root == "dagster" or root.startswith("dagster_"):
                yield Violation(
                    module.name,
                    imported.line,
                    f"imports {imported.target}; `{module.room}` is a library that works without Dagster",
                )


# --- Private names of PyIceberg ---


def private_names_in_one_file(modules: list[Module]) -> Iterator[Violation]:
    """iceberg/commit.py alone imports, reads, calls or overrides what PyIceberg keeps to itself."""
    others = [module for module in modules if module.name != KNOWS_PRIVATE_NAMES]
    ours = {name for module in others for name in _defined(module.tree)}
    for module in others:
        for line, what in (
            *_private_imports(module),
            *_private_attributes(module, ours),
            *_private_overrides(module),
        ):
            yield Violation(module.name, line, f"{what} of PyIceberg; only {KNOWS_PRIVATE_NAMES} does that")


def _private_imports(module: Module) -> Iterator[tuple[int, str]]:
    for imported in imports(module):
        root, *parts = imported.target.split(".")
        if root == "pyiceberg" and any(map(_is_private, parts)):
            yield imported.line, f"imports the private {imported.target}"


def _private_attributes(module: Module, ours: set[str]) -> Iterator[tuple[int, str]]:
    """Attributes whose name PyIceberg defines and we do not.

    On `self` our own base classes count, wherever they are; elsewhere only what this module defines.
    """
    here = set(_defined(module.tree))
    for line, owner, name in _attributes(module.tree):
        own = ours if _is_self(owner) else here
        if _is_private(name) and name in pyiceberg_private_names() and name not in own:
            yield line, f"uses the private name {name}"


def _attributes(tree: ast.Module) -> Iterator[tuple[int, ast.expr, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.value, node.attr
        elif isinstance(node, ast.Call) and _called(node) in {"getattr", "setattr", "hasattr"}:
            yield from ((node.lineno, node.args[0], text) for text in _texts(node.args[1:2]))


def _private_overrides(module: Module) -> Iterator[tuple[int, str]]:
    origins = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pyiceberg"
        for alias in node.names
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            bases = [origins[_name(base)] for base in node.bases if _name(base) in origins]
            for member in node.body:
                name = getattr(member, "name", "")
                if _is_private(name) and any(hasattr(_load(base), name) for base in bases):
                    yield member.lineno, f"overrides the private {name}"


def _load(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _is_self(owner: ast.expr) -> bool:
    if isinstance(owner, ast.Call):
        return _called(owner) == "super"
    return isinstance(owner, ast.Name) and owner.id in {"self", "cls"}


def _is_private(name: str) -> bool:
    """A leading underscore; but `__name__`, `_asdict` of named tuples and `_value_` of enums are public."""
    return (
        name.startswith("_")
        and not name.endswith("_")
        and name not in {"_asdict", "_fields", "_make", "_replace"}
    )


def _defined(tree: ast.Module) -> Iterator[str]:
    """Names a module gives itself: functions, classes, variables, attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            yield node.attr


@functools.cache
def pyiceberg_private_names() -> frozenset[str]:
    """Every private name that PyIceberg's own source defines."""
    folder = Path(pyiceberg.__file__).parent
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py"))
    return frozenset(name for tree in trees for name in _defined(tree) if _is_private(name))


# --- SQL ---

_KEYWORD_BEFORE_VALUE = re.compile(
    r"\b(FROM|JOIN|INTO|TABLE|VIEW|SCHEMA|DATABASE|UPDATE|SET|WHERE|AND|OR|ON|BY|VALUES|LIMIT|AS)"
    r"(\s+IF\s+(NOT\s+)?EXISTS)?[\s(]+[\"'`]?\x00"
)
_STATEMENT = re.compile(
    r"^\s*(WITH|SELECT|INSERT|DELETE\s+FROM|UPDATE|MERGE|CREATE|ALTER|DROP|TRUNCATE|COPY|ATTACH|DETACH|USE)\s"
    r"|\bSELECT\b.*\bFROM\b|\bINSERT\s+(INTO|OVERWRITE)\b|\bDELETE\s+FROM\b|\b(CREATE|ALTER|DROP)\s.*\bTABLE\b"
    r"|(?i:^\s*select\s.*\sfrom\s|^\s*insert\s+into\s.*\s(values|select)\b|^\s*delete\s+from\s.*\swhere\s"
    r"|^\s*update\s.*\sset\s|^\s*create\s+(or\s+replace\s+)?table\s.*\(|^\s*drop\s+table\s)",
    re.DOTALL,
)


def sql_is_quoted(modules: list[Module]) -> Iterator[Violation]:
    """SQL text is put together from constants and quoted names; values are bound.

    A heuristic. What may stand in SQL text: a call of a `quote…` or `qualif…` helper, the `sql_type` of a
    column (a dialect's own words), anything whose
    name ends in `_sql` (text that was itself put together under this rule), and joins of these.
    """
    for module in modules:
        lines = {
            node.lineno
            for node in ast.walk(module.tree)
            if isinstance(node, ast.expr) and _is_unsafe_sql(*_template(node))
        }
        for line in sorted(lines):
            yield Violation(
                module.name,
                line,
                "puts a value into SQL text: bind it as a parameter, quote a name with the quoting helper, "
                "and call a piece of SQL built that way …_sql",
            )


def _is_unsafe_sql(text: str, values: list[ast.expr]) -> bool:
    is_sql = _STATEMENT.search(text) or _KEYWORD_BEFORE_VALUE.search(text)
    return bool(is_sql) and not all(map(_is_safe, values))


def _template(node: ast.expr) -> tuple[str, list[ast.expr]]:
    """The constant text of a string that is put together (each hole a NUL), and what is put into it."""
    if isinstance(node, ast.JoinedStr):
        return _fill(node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _fill(_summands(node))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        values = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
        return "".join(_texts([node.left])).replace("%s", "\x00"), values
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        text = re.sub(r"\{[^{}]*\}", "\x00", "".join(_texts([node.func.value])))
        return text, [*node.args, *(keyword.value for keyword in node.keywords)]
    return "", []


def _fill(parts: list[ast.expr]) -> tuple[str, list[ast.expr]]:
    holes = [part for part in parts if not isinstance(part, ast.Constant)]
    return "".join("\x00" if part in holes else "".join(_texts([part])) for part in parts), holes


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _summands(node.left) + _summands(node.right)
    return node.values if isinstance(node, ast.JoinedStr) else [node]


def _is_safe(node: ast.expr) -> bool:
    if isinstance(node, ast.Name | ast.Attribute):
        return _is_safe_name(_name(node))
    if isinstance(node, ast.Call):
        joins = _called(node) in {"join", "map"}
        return all(map(_is_safe, node.args[:1])) if joins else _is_safe_name(_called(node))
    parts = _safe_if(node)
    return isinstance(node, ast.Constant) or (bool(parts) and all(map(_is_safe, parts)))


def _safe_if(node: ast.expr) -> list[ast.expr]:
    """The parts of an expression that is safe if they are; none if nothing makes it safe."""
    match node:
        case ast.IfExp():
            return [node.body, node.orelse]
        case ast.GeneratorExp() | ast.ListComp():
            return [node.elt]
        case ast.FormattedValue() | ast.Starred():
            return [node.value]
        case ast.BinOp():
            return [node.left, node.right]
        case ast.JoinedStr():
            return node.values
        case ast.List() | ast.Tuple():
            return node.elts
        case _:
            return []


def _is_safe_name(name: str) -> bool:
    plain = name.lower().lstrip("_")
    return plain.startswith(("quote", "qualif")) or plain in {"sql", "sql_type"} or plain.endswith("_sql")


# --- Size ---


def modules_are_short(modules: list[Module]) -> Iterator[Violation]:
    """A module does one thing; past 700 lines it hides several."""
    for module in modules:
        if module.lines > LONGEST_MODULE:
            yield Violation(module.name, module.lines, f"is longer than {LONGEST_MODULE} lines: split it")


# --- The rules, over the package ---

RULES: list[Rule] = [
    floor_order,
    dagster_at_the_top,
    private_names_in_one_file,
    sql_is_quoted,
    modules_are_short,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: Rule) -> None:
    broken = sorted(rule(read_package(ROOT)))
    assert not broken, "\n" + "\n".join(map(str, broken))


# --- The rules, over trees that break them, and over trees that look as if they did ---


def found_by(rule: Rule, root: Path, path: str, source: str) -> list[str]:
    """What a rule says about a package of one module."""
    file = root / PACKAGE / path
    file.parent.mkdir(parents=True)
    file.write_text(source, encoding="utf-8")
    return list(map(str, rule(read_package(root))))


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("iceberg/scan.py", "from dwh_assets.warehouses.duckdb import Replica", "above"),
        ("iceberg/scan.py", "from dwh_assets import versioning", "above"),
        ("iceberg/scan.py", "from dwh_assets import IcebergWriter", "above"),
        ("iceberg/scan.py", "from ..maintenance import plan", "above"),
        ("iceberg/scan.py", "def f():\n    import dwh_assets.agent.profile", "above"),
        (
            "iceberg/scan.py",
            "from importlib import import_module as m\nm('x')\nimport dwh_assets.cli",
            "above",
        ),
        ("config.py", "from dwh_assets.iceberg import catalogs", "above"),
        ("errors.py", "import importlib\nimportlib.import_module('dwh_assets.agent.x')", "above"),
        ("maintenance/plan.py", "from dwh_assets.warehouses import sync", "beside"),
        ("warehouses/sync.py", "from dwh_assets.maintenance.health import health", "beside"),
        ("cli/main.py", "from dwh_assets.orchestration import resources", "beside"),
        ("helpers.py", "", "on no floor"),
    ],
)
def test_an_import_against_the_floors_is_seen(tmp_path: Path, path: str, source: str, message: str) -> None:
    found = found_by(floor_order, tmp_path, path, source)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("orchestration/io.py", "from dwh_assets import IcebergWriter\nfrom dwh_assets.iceberg import scan"),
        ("components/table.py", "from dwh_assets.orchestration import checks"),
        ("warehouses/duckdb.py", "from dwh_assets.warehouses.sync import sync\nfrom . import parity"),
        ("ledger.py", "from dwh_assets.errors import LedgerError\nfrom dwh_assets import config"),
        ("__init__.py", "from dwh_assets.agent.agent import DWHAgent"),
    ],
)
def test_an_import_down_the_floors_is_left_alone(tmp_path: Path, path: str, source: str) -> None:
    assert not found_by(floor_order, tmp_path, path, source)


@pytest.mark.parametrize(
    ("path", "source", "seen"),
    [
        ("iceberg/write.py", "import dagster as dg", True),
        ("warehouses/duckdb.py", "from dagster_duckdb import DuckDBResource", True),
        ("cli/main.py", "if TYPE_CHECKING:\n    from dagster import Definitions", True),
        ("__init__.py", "def f():\n    import dagster._core", True),
        ("definitions.py", "import dagster as dg", False),
        ("defs/nyc/marts.py", "from dagster_duckdb import DuckDBResource", False),
        ("iceberg/write.py", "from dwh_assets.iceberg import dagster_free", False),
    ],
)
def test_dagster_in_a_library_is_seen(tmp_path: Path, path: str, source: str, seen: bool) -> None:
    assert bool(found_by(dagster_at_the_top, tmp_path, path, source)) is seen


CATALOG = "from pyiceberg.catalog import Catalog\nclass C(Catalog):\n"
OWN_NAMES = """
class Scan:
    def __init__(self):
        self._schema = 1
    def __eq__(self, other):
        return self._schema == other._schema and self.__dict__ == other.__dict__
def _bind(row):
    return row._asdict()
"""


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from pyiceberg.table.update.snapshot import _FastAppendFiles", "_FastAppendFiles"),
        ("import pyiceberg._private.names", "_private"),
        ("def f(table): return table._identifier", "_identifier"),
        ("def f(table): return getattr(table, '_identifier')", "_identifier"),
        ("def f(table): table.transaction()._apply(())", "_apply"),
        (CATALOG + "    def f(self): self._load_file_io()", "_load_file_io"),
        (CATALOG + "    def f(self): super()._load_file_io()", "_load_file_io"),
        (CATALOG + "    def _load_file_io(self): ...", "overrides the private _load_file_io"),
    ],
)
def test_a_private_name_of_pyiceberg_is_seen(tmp_path: Path, source: str, name: str) -> None:
    found = found_by(private_names_in_one_file, tmp_path, "iceberg/scan.py", source)
    assert len(found) == 1
    assert name in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("iceberg/commit.py", "from pyiceberg.table import _x\ndef f(t): t._identifier"),
        ("iceberg/scan.py", OWN_NAMES),
        ("iceberg/scan.py", CATALOG + "    def _lease(self): self._lease()"),
    ],
)
def test_private_names_of_our_own_are_left_alone(tmp_path: Path, path: str, source: str) -> None:
    assert not found_by(private_names_in_one_file, tmp_path, path, source)


@pytest.mark.parametrize(
    "expression",
    [
        'f"SELECT count(*) FROM {t}"',
        'f"INSERT INTO \\"{t}\\" VALUES (1)"',
        'f" WHERE a = 1 AND {t} = 2"',
        'f"select a from {t} limit 1"',
        'f"UPDATE {quote(t)} SET a = {t!r}"',
        "f\"SELECT {', '.join(t)} FROM x\"",
        '"DELETE FROM %s" % t',
        '"DELETE FROM %s AS %s" % (t, t)',
        '"DROP TABLE {}".format(t)',
        '"CREATE TABLE " + t + " (i int)"',
    ],
)
def test_a_value_in_sql_text_is_seen(tmp_path: Path, expression: str) -> None:
    assert found_by(sql_is_quoted, tmp_path, "warehouses/duckdb.py", f"def f(t):\n    return {expression}")


@pytest.mark.parametrize(
    "expression",
    [
        'f"SELECT {columns_sql} FROM {self.qualified(t)} JOIN {STATE_SQL} {where_sql if t else None}"',
        "f\"SELECT {', '.join(quote_identifier(c) for c in t)} FROM x\"",
        "f\"SELECT {', '.join(map(quote, t))} FROM x\"",
        '"DROP TABLE " + quote_identifier(t)',
        'execute("SELECT * FROM x WHERE id = ?", [t])',
        'f"Grant SELECT on {t}; update {t} rows from {t}, or insert into {t}"',
    ],
)
def test_quoted_sql_and_prose_are_left_alone(tmp_path: Path, expression: str) -> None:
    source = f"def f(t):\n    return {expression}"
    assert not found_by(sql_is_quoted, tmp_path, "warehouses/duckdb.py", source)


def test_a_long_module_is_seen(tmp_path: Path) -> None:
    found = found_by(modules_are_short, tmp_path, "iceberg/scan.py", "x = 1\n" * (LONGEST_MODULE + 1))
    assert len(found) == 1


# --- What no file may say ---

# Written in pieces, so that this file does not say it either.
REGISTRIES = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "crates" + ".io",
    "proxy" + ".golang" + ".org",
    "repo1" + ".maven" + ".org",
    "repo" + ".maven" + ".apache",
    "deb.debian" + ".org",
    "--index" + "-url",
    "--extra-index" + "-url",
]
FORBIDDEN = re.compile(
    "|".join(map(re.escape, REGISTRIES)) + r"|(?<![\w.~$})/-])/(work|root|tmp|home/\w+|Users/\w+)/"
)


def forbidden_lines(text: str) -> list[str]:
    """Lines that name a package registry's host, or a path that exists on one machine only."""
    return [line.strip() for line in text.splitlines() if FORBIDDEN.search(line)]


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = [f"{path}: {line}" for path, text in _files_of_the_repository() for line in forbidden_lines(text)]
    assert not found, "\n" + "\n".join(found)


def _files_of_the_repository() -> Iterator[tuple[str, str]]:
    """Text files that git tracks, or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no git work tree here: {error}")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content:
            yield name, content.decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("get it from https://" + REGISTRIES[0] + "/simple", True),
        ("pip install " + REGISTRIES[-1] + " https://mirror.example", True),
        ('open("/' + 'root/lake")', True),
        ("cd /" + "tmp/x", True),
        ("HOME=/home/" + "ann/lake", True),
        ("s3://lake/work/x, dwh/tmp/x, $HOME/work/, file:///lake, #!/usr/bin/env bash", False),
    ],
)
def test_forbidden_words_are_seen(text: str, seen: bool) -> None:
    assert bool(forbidden_lines(text)) is seen


# --- Constraints ---


def test_constraints_pin_every_declared_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    odd = [line for line in pins if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; .+)?", line)]
    assert not odd, f"neither a version nor a comment: {odd}"

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {
        re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")
        for requirement in chain.from_iterable(declared)
    }
    missing = names - {pin.partition("==")[0] for pin in pins} - {project["name"].replace("_", "-")}
    assert not missing, f"not in constraints.txt, run `make constraints`: {sorted(missing)}"
