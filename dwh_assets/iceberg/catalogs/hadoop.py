"""A catalog without a server: tables are directories, `<warehouse>/<namespace…>/<table>`.

The layout is that of Iceberg's Java `HadoopCatalog` (Spark's `type=hadoop`), and both read and write
the same tables: `metadata/v1.metadata.json`, `v2…`, and `version-hint.text` with a number that is only
a hint. Whoever creates `vN+1` owns that version (see `hadoop_versions`).

Follow Java's catalog: dropping a table removes its directory with all data in it, a location cannot be
chosen, tables cannot be renamed, namespaces have no properties, views do not exist.

Limits: Spark itself commits atomically on HDFS only; on local files and object stores it looks and then
renames, so it may run beside readers but not beside another writer. A version is always written as plain
`vN.metadata.json`: with `write.metadata.compression-codec=gzip` Spark would use another name for the same
version, so such a table has one writing engine.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from pyiceberg.catalog import Catalog, PropertiesUpdateSummary, delete_files
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NamespaceNotEmptyError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.io import load_file_io
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, CreateTableTransaction, StagedTable, Table, TableProperties
from pyiceberg.table.metadata import TableMetadata, TableMetadataV1, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.table.update import AssertCreate, TableRequirement, TableUpdate, update_table_metadata
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from pyiceberg.view import View
from pyiceberg.view.metadata import ViewVersion
from typing_extensions import override

from dwh_assets.errors import (
    ConfigurationError,
    NotFoundError,
    UnsupportedError,
)
from dwh_assets.iceberg.arrow.types import iceberg_schema
from dwh_assets.iceberg.catalogs.atomic_put import require_exclusive
from dwh_assets.iceberg.catalogs.hadoop_versions import Version, Versions
from dwh_assets.iceberg.catalogs.stores.opening import checked_warehouse, one_spelling, open_store

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

# Hidden names, and what a path, a URL or a glob would read as something else.
_UNFIT_NAME = re.compile(r"^\.|^\s|\s$|[/\\:*?\"<>|#%\[\]{}\x00-\x1f\x7f]")


class HadoopCatalog(Catalog):
    """Iceberg tables in a warehouse directory; commits are atomic, or refused by name where they cannot be.

    `warehouse` is a path or a location under `file:`, `hdfs:`, `s3:`, `gs:` or `abfs(s):`; the other
    properties are PyIceberg's for that store. Namespaces may be nested; every name is one directory.

    Raises:
        ConfigurationError: The warehouse is missing or malformed, or a name cannot be a directory's.
        UnsupportedError: The store cannot create a file exclusively; or what a hadoop catalog does not have.
        UnavailableError: The store cannot be reached.
    """

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self.warehouse = checked_warehouse(properties.get("warehouse"))
        self._store = open_store(self.warehouse, properties)
        self._proved = False

    @override
    def supports_server_side_planning(self) -> bool:
        return False

    def prove_atomic_commits(self) -> None:
        """Prove once, with a small file beside the tables, that the store refuses to create a name twice.

        Every change calls it first. Raises `UnsupportedError` when the store ignores the condition.
        """
        if not self._proved:
            require_exclusive(self._store)
            self._proved = True

    # --- Tables ---

    @override
    def create_table(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> Table:
        staged = self._stage(identifier, schema, location, partition_spec, sort_order, properties)
        return self._create(staged.name(), staged.metadata)

    @override
    def create_table_transaction(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> CreateTableTransaction:
        return CreateTableTransaction(
            self._stage(identifier, schema, location, partition_spec, sort_order, properties)
        )

    @override
    def load_table(self, identifier: str | Identifier) -> Table:
        names = _table_names(identifier)
        version = self._versions(names).newest()
        if version is None:
            self._store.require_root()
            raise NoSuchTableError(f"Table does not exist: {'.'.join(names)}")
        return self._table(names, version.metadata, version.location)

    @override
    def table_exists(self, identifier: str | Identifier) -> bool:
        return self._versions(_table_names(identifier)).exists()

    @override
    def register_table(
        self, identifier: str | Identifier, metadata_location: str, overwrite: bool = False
    ) -> Table:
        """Take over a table that lies in this very directory, whatever catalog wrote it before.

        Its metadata becomes version 1. Raises `UnsupportedError` for a table that lies elsewhere (two
        catalogs would each think it theirs) and for `overwrite`, `NotFoundError` when there is no such file.
        """
        names = _table_names(identifier)
        if overwrite:
            raise UnsupportedError("A hadoop catalog cannot overwrite a table by registering another.")
        metadata = self._foreign_metadata(metadata_location)
        self._require_own_location(names, metadata.location)
        _require_own_metadata(names, metadata)
        self._require_free(names)
        return self._create(names, metadata)

    @override
    def drop_table(self, identifier: str | Identifier) -> None:
        """Remove the table and its directory, data files included, as Java's hadoop catalog does.

        Files that lie elsewhere (`write.data.path`, added files) stay: see `purge_table`.
        """
        names = _table_names(identifier)
        versions = self._versions(names)
        if not versions.exists():
            raise NoSuchTableError(f"Table does not exist: {'.'.join(names)}")
        versions.remove()
        self._store.remove_directory(self._location(names))

    @override
    def purge_table(self, identifier: str | Identifier) -> None:
        """Remove the table, its directory, and the data files elsewhere (unless `gc.enabled` is false)."""
        table = self.load_table(identifier)
        outside = set(_files_elsewhere(table)) if table.properties.get("gc.enabled") != "false" else set()
        self.drop_table(identifier)
        delete_files(table.io, outside, "data")

    @override
    def rename_table(self, from_identifier: str | Identifier, to_identifier: str | Identifier) -> Table:
        """Raise `UnsupportedError`: a table's name is its directory, which its metadata names."""
        raise UnsupportedError(
            f"{'.'.join(_table_names(from_identifier))} cannot be renamed: in a hadoop catalog the name "
            "is the place.",
            remedy="Create a table of the new name and copy the rows.",
        )

    @override
    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        names = table.name()
        versions = self._versions(names)
        base = versions.newest()
        if base is None and not any(isinstance(requirement, AssertCreate) for requirement in requirements):
            raise NoSuchTableError(f"Table does not exist: {'.'.join(names)}")
        for requirement in requirements:
            requirement.validate(base.metadata if base else None)
        metadata = _updated(base, updates)
        if base is not None and metadata == base.metadata:
            return CommitTableResponse(metadata=base.metadata, metadata_location=base.location)
        if metadata.location != (base.metadata.location if base else self._location(names)):
            raise UnsupportedError(
                f"{'.'.join(names)}: a hadoop table cannot be moved; its name is its place."
            )
        _require_own_metadata(names, metadata)
        self.prove_atomic_commits()
        return CommitTableResponse(metadata=metadata, metadata_location=versions.commit(base, metadata))

    @override
    def list_tables(self, namespace: str | Identifier) -> list[Identifier]:
        names = _namespace_names(namespace)
        return [
            (*names, child) for child in self._children(names) if self._versions((*names, child)).exists()
        ]

    # --- Namespaces ---

    @override
    def create_namespace(self, namespace: str | Identifier, properties: Properties = EMPTY_DICT) -> None:
        names = _namespace_names(namespace)
        if properties:
            self._refuse_properties(names)
        if self._store.is_directory(self._location(names)):
            raise NamespaceAlreadyExistsError(f"Namespace already exists: {'.'.join(names)}")
        self._require_no_table_above(names)
        self.prove_atomic_commits()
        self._store.keep_directory(self._location(names))

    @override
    def namespace_exists(self, namespace: str | Identifier) -> bool:
        return self._is_namespace(_namespace_names(namespace))

    @override
    def drop_namespace(self, namespace: str | Identifier) -> None:
        names = _namespace_names(namespace)
        self._require_namespace(names)
        if self._store.entries(self._location(names)):
            raise NamespaceNotEmptyError(f"Namespace is not empty: {'.'.join(names)}")
        self._store.remove_directory(self._location(names))

    @override
    def list_namespaces(self, namespace: str | Identifier = ()) -> list[Identifier]:
        names = _namespace_names(namespace) if namespace else ()
        if not names and not self._store.is_directory(self.warehouse):
            self._store.require_root()
            return []
        return [(*names, child) for child in self._children(names) if not self._is_table((*names, child))]

    @override
    def load_namespace_properties(self, namespace: str | Identifier) -> Properties:
        """Return the namespace's location, the only thing it has."""
        names = _namespace_names(namespace)
        self._require_namespace(names)
        return {"location": self._location(names)}

    @override
    def update_namespace_properties(
        self, namespace: str | Identifier, removals: set[str] | None = None, updates: Properties = EMPTY_DICT
    ) -> PropertiesUpdateSummary:
        """Raise `UnsupportedError`: a directory has no properties."""
        self._refuse_properties(_namespace_names(namespace))

    # --- Views, which there are none of ---

    @override
    def list_views(self, namespace: str | Identifier) -> list[Identifier]:
        return []

    @override
    def view_exists(self, identifier: str | Identifier) -> bool:
        return False

    @override
    def load_view(self, identifier: str | Identifier) -> View:
        _refuse_view(identifier)

    @override
    def drop_view(self, identifier: str | Identifier) -> None:
        _refuse_view(identifier)

    @override
    def register_view(self, identifier: str | Identifier, metadata_location: str) -> View:
        _refuse_view(identifier)

    @override
    def create_view(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        view_version: ViewVersion,
        location: str | None = None,
        properties: Properties = EMPTY_DICT,
    ) -> View:
        _refuse_view(identifier)

    # --- Helpers ---

    def _location(self, names: Identifier) -> str:
        return "/".join([self.warehouse, *names])

    def _versions(self, names: Identifier) -> Versions:
        return Versions(self._store, self._location(names))

    def _table(self, names: Identifier, metadata: TableMetadata, location: str) -> Table:
        file_io = load_file_io({**self.properties, **metadata.properties}, location)
        return Table(
            identifier=names, metadata=metadata, metadata_location=location, io=file_io, catalog=self
        )

    def _stage(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None,
        partition_spec: PartitionSpec,
        sort_order: SortOrder,
        properties: Properties,
    ) -> StagedTable:
        """Return the table as it would be, having seen that it can be; nothing is written."""
        names = _table_names(identifier)
        if location is not None:
            self._require_own_location(names, location)
        metadata = new_table_metadata(
            schema=schema if isinstance(schema, Schema) else iceberg_schema(schema),
            partition_spec=partition_spec,
            sort_order=sort_order,
            location=self._location(names),
            properties=dict(properties),
        )
        _require_own_metadata(names, metadata)
        self._require_free(names)
        self.prove_atomic_commits()
        table = self._table(names, metadata, f"{metadata.location}/metadata/v1.metadata.json")
        return StagedTable(names, metadata, table.metadata_location, table.io, self)

    def _create(self, names: Identifier, metadata: TableMetadata) -> Table:
        self.prove_atomic_commits()
        try:
            location = self._versions(names).commit(None, metadata)
        except CommitFailedException:
            raise TableAlreadyExistsError(f"Table already exists: {'.'.join(names)}") from None
        return self._table(names, metadata, location)

    def _foreign_metadata(self, location: str) -> TableMetadata:
        try:
            return FromInputFile.table_metadata(load_file_io(self.properties, location).new_input(location))
        except FileNotFoundError:
            raise NotFoundError(f"There is no metadata at {location}.") from None

    def _require_free(self, names: Identifier) -> None:
        """See that a table fits in: its namespace exists, and no table or namespace lies in its place."""
        self._require_namespace(names[:-1])
        self._require_no_table_above(names[:-1])
        if self._versions(names).exists():
            raise TableAlreadyExistsError(f"Table already exists: {'.'.join(names)}")
        with suppress(FileNotFoundError):
            inside = {e.name for e in self._store.entries(self._location(names)) if e.is_directory}
            if inside - {"data", "metadata"}:
                raise NamespaceAlreadyExistsError(
                    f"{'.'.join(names)} is a namespace; dropping a table would empty it."
                )

    def _require_no_table_above(self, names: Identifier) -> None:
        for depth in range(1, len(names) + 1):
            if self._is_table(names[:depth]):
                raise ConfigurationError(
                    f"{'.'.join(names)} would lie inside the table {'.'.join(names[:depth])}.",
                    remedy="Choose another namespace.",
                )

    def _require_own_location(self, names: Identifier, location: str) -> None:
        if one_spelling(location) != one_spelling(self._location(names)):
            raise UnsupportedError(
                f"{'.'.join(names)} has to lie at {self._location(names)}, not at {location}: in a hadoop "
                "catalog a table's name is its place.",
                remedy="Leave the location out, or use a catalog of another kind.",
            )

    def _is_table(self, names: Identifier) -> bool:
        """Say whether a table is here, also one of another catalog's naming (as Java's catalog sees it)."""
        directory = f"{self._location(names)}/metadata"
        return self._versions(names).exists() or any(
            name.endswith((".metadata.json", ".metadata.json.gz")) for name in self._store.names(directory)
        )

    def _is_namespace(self, names: Identifier) -> bool:
        return self._store.is_directory(self._location(names)) and not self._is_table(names)

    def _require_namespace(self, names: Identifier) -> None:
        if not self._is_namespace(names):
            self._store.require_root()
            raise NoSuchNamespaceError(f"Namespace does not exist: {'.'.join(names)}")

    def _children(self, names: Identifier) -> Iterator[str]:
        """Yield the directories in a namespace, in order, without hidden ones."""
        if names:
            self._require_namespace(names)
        entries = self._store.entries(self._location(names))
        yield from sorted(e.name for e in entries if e.is_directory and not e.name.startswith("."))

    def _refuse_properties(self, names: Identifier) -> NoReturn:
        raise UnsupportedError(
            f"Namespace {'.'.join(names)} cannot have properties: in a hadoop catalog it is a directory.",
            remedy="Create it without, or use a catalog of another kind.",
        )


def _require_own_metadata(names: Identifier, metadata: TableMetadata) -> None:
    if TableProperties.WRITE_METADATA_PATH in metadata.properties:
        raise UnsupportedError(
            f"{'.'.join(names)}: a hadoop table keeps its metadata in its own directory.",
            remedy=f"Leave {TableProperties.WRITE_METADATA_PATH} out.",
        )


def _updated(base: Version | None, updates: tuple[TableUpdate, ...]) -> TableMetadata:
    """Return the metadata after the updates; a new table's start from metadata without anything in it."""
    nothing: dict[str, Any] = {"last_column_id": -1, "schema": Schema()}
    return update_table_metadata(
        base_metadata=base.metadata if base else TableMetadataV1.model_construct(**nothing),
        updates=updates,
        enforce_validation=base is None,
        metadata_location=base.location if base else None,
    )


def _files_elsewhere(table: Table) -> Iterator[str]:
    """Yield the data and delete files of every snapshot that do not lie in the table's directory."""
    own = f"{one_spelling(table.location())}/"
    seen: set[str] = set()
    for snapshot in table.snapshots():
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=False)
                paths = (entry.data_file.file_path for entry in entries)
                yield from (path for path in paths if not one_spelling(path).startswith(own))


def _table_names(identifier: str | Identifier) -> Identifier:
    names = _namespace_names(identifier)
    if len(names) < 2:
        raise ConfigurationError(
            f"{'.'.join(names)!r} names no namespace.", remedy="Name a table as namespace.table."
        )
    return names


def _namespace_names(namespace: str | Identifier) -> Identifier:
    """Return the parts of a name, each fit to be one directory and nothing but that."""
    names = Catalog.identifier_to_tuple(namespace)
    for name in names:
        if not name or _UNFIT_NAME.search(name):
            raise ConfigurationError(
                f"{name!r} in {'.'.join(names)!r} cannot be the name of a directory.",
                remedy="Leave out slashes, quotes, brackets, outer blanks, leading dots and : * ? | # %.",
            )
    if not names:
        raise ConfigurationError("The namespace has no name.")
    return names


def _refuse_view(identifier: str | Identifier) -> NoReturn:
    raise UnsupportedError(
        f"{'.'.join(Catalog.identifier_to_tuple(identifier))}: a hadoop catalog has no views.",
        remedy="Use a catalog of another kind.",
    )
