"""The discovery of models, and their timestamps."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy.dialects import sqlite

from {{cookiecutter.package_name}}.foundation.database import Base
from {{cookiecutter.package_name}}.foundation.database.base import UTCDateTime, import_models

from ..sample import samples
from . import test_row_ids

Make = Callable[[dict[str, str]], ModuleType]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make an importable package of files; a folder of one is a package, too."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(files: dict[str, str]) -> ModuleType:
        for name, content in files.items():
            path = tmp_path / "discovered" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in path.parents[: len(Path(name).parents)]:
                (folder / "__init__.py").touch()
            path.write_text(content)
        return importlib.import_module("discovered")

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "discovered"]:
        del sys.modules[name]


def imported() -> set[str]:
    """Return the modules of the package that are imported, packages left out."""
    names = {name for name in sys.modules if name.startswith("discovered.")}
    return {name.removeprefix("discovered.") for name in names if not hasattr(sys.modules[name], "__path__")}


def test_models_are_found_at_any_depth(make: Make) -> None:
    """Modules called `models`, and all modules of packages called `models`, are imported at any depth."""
    package = make(
        {
            "orders/models.py": "",
            "shop/catalogue/models.py": "",
            "shop/models/article.py": "",
            "shop/models/price.py": "",
        }
    )

    import_models(package)

    assert imported() == {
        "orders.models",
        "shop.catalogue.models",
        "shop.models.article",
        "shop.models.price",
    }


def test_modules_that_are_no_models_are_not_imported(make: Make) -> None:
    """Other modules are not imported, because views of a feature may need an application."""
    package = make({"orders/views.py": "raise RuntimeError", "orders/models_old.py": "raise RuntimeError"})

    import_models(package)

    assert imported() == set()


@pytest.mark.parametrize("file", ["orders/models.py", "orders/__init__.py", "shop/orders/__init__.py"])
@pytest.mark.parametrize("error", ["ImportError", "ModuleNotFoundError", "LookupError"])
def test_an_error_of_an_import_is_raised(make: Make, file: str, error: str) -> None:
    """An error during the import of a module of models, or of a package around it, is raised."""
    package = make({"orders/models.py": "", file: f"raise {error}('a missing library')"})

    with pytest.raises((ImportError, LookupError), match="a missing library"):
        import_models(package)


NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "stored", [NOON, NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))]
)
def test_a_timestamp_is_read_in_utc(stored: datetime) -> None:
    """A timestamp in another zone is converted to UTC, and one without a zone is taken as UTC."""
    found = UTCDateTime().process_result_value(stored, sqlite.dialect())

    assert found is not None
    assert (found, found.tzinfo) == (NOON, UTC)


def test_a_timestamp_without_a_zone_is_refused() -> None:
    """A naive timestamp is rejected with an error that names the fix."""
    with pytest.raises(ValueError, match=r"has no time zone: use datetime\.now\(UTC\)"):
        UTCDateTime().process_bind_param(NOON.replace(tzinfo=None), sqlite.dialect())


def test_no_model_of_these_tests_takes_a_name_of_an_owner() -> None:
    """A relationship finds a model by its class name, so the models of these tests have a prefix."""
    own = "tests.foundation."
    names = {m.class_.__name__ for m in Base.registry.mappers if m.class_.__module__.startswith(own)}

    assert {samples.FoundationSample.__name__, test_row_ids.FoundationPair.__name__} <= names
    assert [name for name in names if not name.startswith("Foundation")] == []
