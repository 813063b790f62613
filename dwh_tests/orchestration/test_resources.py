"""Which catalog the resource opens: the environment's, or the one that it is given."""

from pathlib import Path

import pytest

from dwh_assets.errors import ConfigurationError
from dwh_assets.orchestration.resources import IcebergCatalogResource


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DWH_CATALOG_TYPE", "DWH_CATALOG_URI", "DWH_WAREHOUSE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_without_attributes_it_is_a_sqlite_file_in_the_current_folder(tmp_path: Path) -> None:
    config = IcebergCatalogResource().config()
    assert (config.name, config.kind) == ("dwh", "sql")
    assert config.warehouse == (tmp_path / "lakehouse").as_uri()
    assert config.uri == f"sqlite:///{tmp_path / 'lakehouse' / 'catalog.db'}"


def test_the_environment_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWH_CATALOG_TYPE", "rest")
    monkeypatch.setenv("DWH_CATALOG_URI", "https://catalog.example")
    monkeypatch.setenv("DWH_WAREHOUSE", "s3://lake")
    config = IcebergCatalogResource(name="prod", properties={"token": "${TOKEN}"}).config()
    assert (config.name, config.kind, config.uri, config.warehouse) == (
        "prod", "rest", "https://catalog.example", "s3://lake",
    )  # fmt: skip
    assert config.properties == {"token": "${TOKEN}"}


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also without a kind: a uri that is passed over in silence would be another catalog than meant."""
    monkeypatch.setenv("DWH_WAREHOUSE", "elsewhere")
    config = IcebergCatalogResource(uri="sqlite:///mine.db").config()
    assert (config.kind, config.uri) == ("sql", "sqlite:///mine.db")
    assert config.warehouse == (tmp_path / "elsewhere").as_uri()
    config = IcebergCatalogResource(warehouse="file:///mine").config()
    assert config.warehouse == "file:///mine"


def test_a_kind_is_taken_as_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWH_CATALOG_URI", "https://catalog.example")
    config = IcebergCatalogResource(kind="hadoop", warehouse="file:///lake").config()
    assert (config.kind, config.uri, config.warehouse) == ("hadoop", None, "file:///lake")


def test_an_unknown_kind_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match=r"nessie.*sql.*rest.*glue.*hive.*hadoop"):
        IcebergCatalogResource(kind="nessie").config()
