"""Environment variables may be secrets: not even an error of the database tells them."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import SQLAlchemyError

from adapters.store import Store
from tests.support.packages import LocalStore

SECRET = "hunter2-and-nobody-else"


def test_an_error_of_the_database_tells_no_values(any_store: Store) -> None:
    """Its text is logged, and shown by commands."""
    store = LocalStore.of(any_store)
    with store.writer.begin() as connection:
        connection.exec_driver_sql("DROP TABLE environments")
    with pytest.raises(SQLAlchemyError) as failed:
        store.store.services.environments.keep("app:app-1", {"PASSWORD": SECRET})
    assert "environments" in str(failed.value)
    assert SECRET not in f"{failed.value} {failed.value!r}"
