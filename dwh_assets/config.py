"""What a person declares: catalogs, table layout, schema evolution, and how a write behaves.

One set of models serves notebooks (`IcebergWriterConfig`) and `defs.yaml` (the component reuses
`TableLayout`), so an attribute means the same in both. Unknown attributes are refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import quote

import dotenv
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from dwh_assets.errors import ConfigurationError

CatalogKind = Literal["sql", "rest", "glue", "hive", "hadoop"]
WriteMode = Literal["append", "overwrite", "upsert", "merge"]

_TRANSFORM = re.compile(r"identity|year|month|day|hour|void|bucket\[[1-9]\d*\]|truncate\[[1-9]\d*\]")
_ENVIRONMENT_REFERENCE = re.compile(r"\$\{(\w+)\}")


def ref_name_fault(name: str) -> str | None:
    """Say why this is no name for a tag or a branch; None for one that every store and terminal takes."""
    if not name.strip():
        return "a name holds more than blanks"
    if name != name.strip():
        return "it begins or ends with a blank"
    odd = next((character for character in name if not character.isprintable()), None)
    return None if odd is None else f"it holds {odd!r}, which cannot be printed"


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CatalogConfig(_Declared):
    """One Iceberg catalog: its kind, where it is, and any further PyIceberg property.

    Values may name environment variables as `${NAME}`; they are resolved when the catalog is
    opened, so that no secret is ever held by a declaration.
    """

    name: str = Field(default="dwh", description="The catalog's name; a SQL catalog keys its rows by it.")
    kind: CatalogKind = Field(default="sql", description="sql, rest, glue, hive or hadoop.")
    uri: str | None = Field(
        default=None, repr=False, description="Where the catalog answers, e.g. sqlite:///lake/catalog.db."
    )
    warehouse: str | None = Field(
        default=None, description="Where tables are kept, e.g. file:///lake or s3://lake."
    )
    properties: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Further PyIceberg properties; write secrets as ${NAME}.",
    )

    @classmethod
    def from_environment(
        cls, *, kind: str | None = None, uri: str | None = None, warehouse: str | None = None
    ) -> Self:
        """Read the catalog from `DWH_CATALOG_*` and `DWH_WAREHOUSE`; by default SQLite and local files.

        `.env` of the current folder is read, too, as Dagster does; variables that are already set win, and
        what is given here goes before either. Raises `ConfigurationError` for an unknown kind.
        """
        load_dotenv()
        kind = kind or os.environ.get("DWH_CATALOG_TYPE", "sql")
        if kind not in get_args(CatalogKind):
            raise ConfigurationError(
                f"DWH_CATALOG_TYPE is {kind!r}.",
                remedy=f"Set it to one of {', '.join(get_args(CatalogKind))}.",
            )
        warehouse = warehouse or os.environ.get("DWH_WAREHOUSE", "lakehouse")
        if "://" not in warehouse:
            warehouse = _location(Path(warehouse).absolute())
        uri = uri or os.environ.get("DWH_CATALOG_URI")
        if uri is None and kind == "sql":
            uri = f"sqlite:///{quote(str(local_path(warehouse) / 'catalog.db'))}"
        return cls.model_validate({"kind": kind, "uri": uri, "warehouse": warehouse})

    def resolved_properties(self) -> dict[str, str]:
        """Return every PyIceberg property, with `${NAME}` replaced from the environment.

        Raises `ConfigurationError` that names the variable when it is not set.
        """
        given = {"uri": self.uri, "warehouse": self.warehouse, **self.properties}
        return {key: _resolve_environment(value, key) for key, value in given.items() if value is not None}


def duckdb_path() -> str:
    """Return the DuckDB file of the replicas: `DWH_DUCKDB_PATH`, else one in the local lakehouse."""
    load_dotenv()
    return os.environ.get("DWH_DUCKDB_PATH", "lakehouse/replicas.duckdb")


def ledger_url(warehouse: str | None = None) -> str:
    """Return where the ledger is: `DWH_LEDGER_URL`, else a SQLite file beside the local warehouse.

    `warehouse` goes before the environment's.

    Raises `ConfigurationError` when the warehouse is not local and the variable is not set.
    """
    load_dotenv()
    given = os.environ.get("DWH_LEDGER_URL")
    if given:
        return given
    warehouse = warehouse or CatalogConfig.from_environment().warehouse or "lakehouse"
    if "://" in warehouse and not warehouse.startswith("file:"):
        raise ConfigurationError(
            f"The warehouse {warehouse!r} is not a local path, so the ledger cannot be put beside it.",
            remedy="Set DWH_LEDGER_URL, e.g. to a PostgreSQL database.",
        )
    return f"sqlite:///{local_path(warehouse) / 'ledger.db'}"


def load_dotenv() -> None:
    """Read `.env` of the current folder, as `dagster dev` does; variables that are already set win."""
    dotenv.load_dotenv(Path(".env").absolute())


def local_path(uri: str) -> Path:
    """Return the local path of a `file:` URI or plain path; `ConfigurationError` for any other scheme."""
    if uri.startswith("file:"):
        return Path(re.sub(r"^file:(//)?", "", uri))
    if "://" in uri:
        raise ConfigurationError(
            f"{uri!r} is not a local path, so the catalog database cannot be put beside it.",
            remedy="Set DWH_CATALOG_URI to where the catalog is.",
        )
    return Path(uri).absolute()


def _location(path: Path) -> str:
    """Return a path as PyIceberg takes it: nothing is escaped, and of a URI it drops what follows # or ?."""
    return str(path) if set("#?") & set(str(path)) else f"file://{path}"


def _resolve_environment(value: str, attribute: str) -> str:
    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise ConfigurationError(
                f"Catalog property {attribute!r} needs the environment variable {match[1]}: it is not set.",
                remedy=f"Set {match[1]}, for example in .env.",
            )
        return found

    return _ENVIRONMENT_REFERENCE.sub(replace, value)


class PartitionBy(_Declared):
    """One field of a partition spec."""

    field: str = Field(description="The column that the partition value is made from.")
    transform: str = Field(
        default="identity",
        description="identity, year, month, day, hour, bucket[n], truncate[w] or void.",
    )

    @field_validator("transform")
    @classmethod
    def _known_transform(cls, value: str) -> str:
        if not _TRANSFORM.fullmatch(value):
            raise ValueError(
                f"{value!r} is not a transform: write identity, year, month, day, hour, "
                "bucket[n], truncate[w] or void"
            )
        return value


class ColumnDeclaration(_Declared):
    """What is promised about one column, over what the data themselves say."""

    description: str | None = Field(default=None, description="Kept as the Iceberg column's doc.")
    type: str | None = Field(
        default=None,
        description="Iceberg type, e.g. int, decimal(10, 2), timestamptz; "
        "data are cast when every value survives.",
    )
    required: bool = Field(default=False, description="Refuse nulls.")


class SortBy(_Declared):
    """One field of a sort order."""

    field: str = Field(description="The column to sort by.")
    direction: Literal["asc", "desc"] = Field(default="asc", description="asc or desc.")
    nulls: Literal["first", "last"] = Field(default="first", description="Where nulls go: first or last.")


class SchemaEvolution(_Declared):
    """What may happen to the table's columns when the data's differ."""

    enabled: bool = Field(default=True, description="false refuses every difference.")
    mode: Literal["strict", "permissive"] = Field(
        default="strict",
        description="strict adds nullable columns and widens types; permissive also fills missing columns "
        "with null and casts where every value survives.",
    )


class MergeClause(_Declared):
    """What a merge does with some of the rows."""

    when: Literal["matched", "not_matched", "not_matched_by_source"] = Field(
        description="matched: a row of the data and one of the table belong together; not_matched: a row of "
        "the data has no partner in the table; not_matched_by_source: one of the table has none in the data."
    )
    then: Literal["update", "delete", "insert"] = Field(
        description="update or delete for rows of the table, insert for not_matched."
    )
    only_if: str | None = Field(
        default=None,
        alias="if",
        description="SQL condition over source and target; the clause applies where it is true.",
    )
    values: dict[str, str] | None = Field(
        default=None,
        alias="set",
        description="Column: SQL expression over source and target. Unset: every column as in the data. "
        "Columns that are not named keep their value in an update and are null in an insert.",
    )

    # Both spellings are accepted: `if` is a keyword of Python.
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _fits_its_rows(self) -> Self:
        allowed = ("insert",) if self.when == "not_matched" else ("update", "delete")
        if self.then not in allowed:
            raise ValueError(f"when {self.when} takes {' or '.join(allowed)}, not {self.then}")
        if self.then == "delete" and self.values is not None:
            raise ValueError("a clause that deletes sets nothing")
        if self.when == "not_matched_by_source" and self.then == "update" and not self.values:
            raise ValueError("when not_matched_by_source, an update needs set: there is no row of the data")
        if self.values is not None and not self.values:
            raise ValueError("set names no column; leave it out to take every column from the data")
        return self


class Merge(_Declared):
    """How a merge pairs the rows of the data with the table's, and what it does with them."""

    on: str | None = Field(
        default=None,
        description="SQL condition over source and target that pairs rows; unset: equal key_columns.",
    )
    clauses: list[MergeClause] = Field(
        description="In order: to each row or pair the first clause that applies is applied."
    )
    not_written: list[str] = Field(
        default_factory=list,
        description="Columns of the data that only conditions and expressions use, such as a change flag.",
    )

    @model_validator(mode="after")
    def _every_clause_can_apply(self) -> Self:
        if not self.clauses:
            raise ValueError("a merge without clauses does nothing; give at least one")
        caught: dict[str, int] = {}
        for number, clause in enumerate(self.clauses, start=1):
            if clause.when in caught:
                raise ValueError(
                    f"clause {number} never applies: clause {caught[clause.when]} takes every "
                    f"{clause.when} row; give that one an if, or put it last"
                )
            if clause.only_if is None:
                caught[clause.when] = number
        return self

    @model_validator(mode="before")
    @classmethod
    def _yaml_reads_on_as_true(cls, given: Any) -> Any:
        """In YAML 1.1 the bare key `on` is the boolean true."""
        if isinstance(given, dict) and True in given:
            return {"on" if key is True else key: value for key, value in given.items()}
        return given


class Stream(_Declared):
    """How a table is fed from a stream: in micro-batches, each of them one snapshot, written exactly once."""

    name: str = Field(
        min_length=1, description="The stream's name; the table remembers by it how many rows it holds."
    )
    commit_rows: int | None = Field(
        default=None, ge=1, description="Commit after so many rows; unset: all that comes is one commit."
    )
    commit_seconds: float | None = Field(default=None, gt=0, description="Commit after so many seconds.")


class TableLayout(_Declared):
    """How one Iceberg table is laid out and written; the part that notebooks and YAML share."""

    write_mode: WriteMode = Field(default="append", description="append, overwrite, upsert or merge.")
    key_columns: list[str] = Field(default_factory=list, description="Columns that identify a row.")
    overwrite: Literal["table", "partitions"] = Field(
        default="table",
        description="What write_mode overwrite replaces: the whole table, or every Iceberg partition that a "
        "row of the data falls into (Spark's dynamic overwrite; a table without partitions is one).",
    )
    overwrite_where: str | None = Field(
        default=None,
        description="Overwrite only rows that match, e.g. region = 'eu'; the data must match it too.",
    )
    merge: Merge | None = Field(
        default=None, description="What write_mode merge does: how rows are paired, and ordered clauses."
    )
    detect_unchanged: bool = Field(
        default=True,
        description="Upsert and merge leave rows alone that equal the table's; false writes them again.",
    )
    null_keys: Literal["error", "match"] = Field(
        default="error",
        description="A null in a key column is an error, or matches a null (upsert, and merge without on).",
    )
    on_duplicate: Literal["error", "first", "last"] = Field(
        default="error",
        description="When the data of an upsert or merge repeat a key: refuse, or keep the first or last; "
        "a merge refuses only what would change one row, or insert one key, twice.",
    )
    duplicate_order: str | None = Field(
        default=None,
        description="The column that orders rows of one key; unset: the order in which they arrive.",
    )
    row_changes: Literal["merge-on-read", "copy-on-write"] = Field(
        default="merge-on-read",
        description="How rows leave a data file: marked by a delete file, or by writing the file again.",
    )
    columns: dict[str, ColumnDeclaration] = Field(
        default_factory=dict,
        description="Descriptions, types and constraints by column name; none is mandatory.",
    )
    partition_spec: list[PartitionBy] = Field(
        default_factory=list, description="Iceberg partitioning, outermost field first."
    )
    sort_order: list[SortBy] = Field(
        default_factory=list, description="Order of rows inside every written file."
    )
    schema_evolution: SchemaEvolution = Field(
        default_factory=SchemaEvolution, description="What may happen to the columns when the data's differ."
    )
    table_properties: dict[str, str] = Field(
        default_factory=dict, description="Iceberg table properties to set; others are never removed."
    )
    target_file_size_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        default=128 << 20, description="Size of data files to aim at, in bytes (at least 1 MiB)."
    )
    format_version: Literal[2] = Field(
        default=2, description="Iceberg format version; PyIceberg 0.12 can write version 2 only."
    )
    branch: str = Field(
        default="main",
        min_length=1,
        description="The branch that is written; one that does not exist yet begins as main is.",
    )
    idempotency_key: str | None = Field(
        default=None, description="A repeat with the same key writes nothing and returns the first result."
    )

    @field_validator("branch")
    @classmethod
    def _named(cls, value: str) -> str:
        if fault := ref_name_fault(value):
            raise ValueError(f"{value!r} is no name for a branch: {fault}")
        return value


class IcebergWriterConfig(TableLayout):
    """Everything `IcebergWriter` needs to write one table.

    `catalog` is a kind (`"sql"`) together with `catalog_config`'s properties, or a full `CatalogConfig`.
    """

    catalog: CatalogKind | CatalogConfig = Field(
        default="sql", description="Kind of the catalog, or the catalog."
    )
    catalog_config: dict[str, str | SecretStr] = Field(
        default_factory=dict,
        repr=False,
        description="uri, warehouse and further properties, when `catalog` is a kind.",
    )
    table: str = Field(description="namespace.table")

    @field_validator("table")
    @classmethod
    def _qualified(cls, value: str) -> str:
        if not all(part.strip() for part in value.split(".")) or "." not in value:
            raise ValueError(f"{value!r} must be namespace.table")
        return value

    @model_validator(mode="after")
    def _keys_for_upsert(self) -> Self:
        if self.write_mode == "upsert" and not self.key_columns:
            raise ValueError("write_mode upsert needs key_columns")
        return self

    @model_validator(mode="after")
    def _overwrite_for_overwrite(self) -> Self:
        if self.write_mode != "overwrite" and (self.overwrite != "table" or self.overwrite_where is not None):
            name = "overwrite" if self.overwrite != "table" else "overwrite_where"
            raise ValueError(f"{name} says what write_mode: overwrite replaces, not {self.write_mode}")
        return self

    @model_validator(mode="after")
    def _merge_for_merge(self) -> Self:
        if (self.write_mode == "merge") != (self.merge is not None):
            raise ValueError(
                "write_mode: merge needs the attribute merge, with clauses; neither goes without the other"
            )
        if self.merge is not None and self.merge.on is None and not self.key_columns:
            raise ValueError("merge needs on, or key_columns")
        if self.on_duplicate != "error" and self.write_mode == "merge" and not self.key_columns:
            raise ValueError("on_duplicate needs key_columns")
        return self

    @model_validator(mode="after")
    def _one_catalog(self) -> Self:
        if isinstance(self.catalog, CatalogConfig) and self.catalog_config:
            raise ValueError("give catalog_config only when catalog is a kind such as 'sql'")
        return self

    def resolved_catalog(self) -> CatalogConfig:
        """Return the catalog that `catalog` and `catalog_config` describe together."""
        if isinstance(self.catalog, CatalogConfig):
            return self.catalog
        return catalog_from_properties(self.catalog, self.catalog_config)


def catalog_from_properties(kind: CatalogKind, properties: dict[str, Any]) -> CatalogConfig:
    """Sort a flat mapping of properties into a `CatalogConfig` of the given kind."""
    plain = {k: v.get_secret_value() if isinstance(v, SecretStr) else str(v) for k, v in properties.items()}
    known = {key: plain.pop(key) for key in ("name", "uri", "warehouse") if key in plain}
    return CatalogConfig(kind=kind, properties=plain, **known)
