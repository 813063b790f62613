"""What the Iceberg writer can do, said once: for notebooks, the Dagster component and whoever asks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, get_args

from dwh_assets.config import CatalogKind, WriteMode
from dwh_assets.iceberg.doctor.examination import CHECKS


@dataclass(frozen=True)
class Capabilities:
    """A declaration of capabilities; every list is the very one that the code goes by.

    `features` are `batch` (`write`), `streaming` (`write_stream`), `versioning` (each write is one snapshot,
    on a branch if wanted) and `time_travel` (`scan(table, snapshot_id=…)`).
    """

    name: str
    version: str
    modes: tuple[str, ...]
    features: tuple[str, ...]
    catalogs: tuple[str, ...]
    doctor_checks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON and YAML can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    def __str__(self) -> str:
        lists = {name: value for name, value in self.as_dict().items() if isinstance(value, list)}
        told = "; ".join(f"{name.replace('_', ' ')}: {', '.join(value)}" for name, value in lists.items())
        return f"{self.name} {self.version}; {told}."


CAPABILITIES = Capabilities(
    name="iceberg",
    version=version("dwh_assets"),
    modes=get_args(WriteMode),
    features=("batch", "streaming", "versioning", "time_travel"),
    catalogs=get_args(CatalogKind),
    doctor_checks=CHECKS,
)
