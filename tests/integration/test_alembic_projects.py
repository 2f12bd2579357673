"""Alembic as a user runs it: generated revisions, offline SQL, the branch ``saga``, this repository's folder."""

from __future__ import annotations

import argparse
import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine

from alembic import command
from saga_orchestrator.migrations import MigrationError

ROOT = Path(__file__).parents[2]

MODELS = """
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from saga_orchestrator import SagaStateMixin

class Base(DeclarativeBase):
    pass

class OrderSaga(Base, SagaStateMixin):
    __tablename__ = "order_saga"
    tenant: Mapped[str | None] = mapped_column(String(50))
"""

ENV = """
import asyncio
import runpy

from alembic import context
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from saga_orchestrator.migrations import render_item

config = context.config
metadata = runpy.run_path(config.get_main_option("models"), run_name="__main__")["Base"].metadata
options = {"target_metadata": metadata, "compare_server_default": True, **config.attributes.get("options", {})}
if config.get_main_option("render") == "on":
    options["render_item"] = render_item
url = config.get_main_option("url")

def migrate(connection):
    context.configure(connection=connection, **options)
    with context.begin_transaction():
        context.run_migrations()

async def online():
    async with create_async_engine(url, poolclass=NullPool).connect() as connection:
        await connection.run_sync(migrate)

if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(online())
"""

WAY_A = """
from alembic import op
import sqlalchemy as sa
from saga_orchestrator import migrations

revision = "mine_1"
down_revision = None

def upgrade():
    migrations.upgrade(op, since=0, to=2, table="order_saga")
    op.add_column("order_saga", sa.Column("tenant", sa.String(50)))

def downgrade():
    migrations.downgrade(op, since=2, to=0, table="order_saga")
"""

OWN = """
from alembic import op
import sqlalchemy as sa

revision = "mine_1"
down_revision = None
branch_labels = ("mine",)
depends_on = "saga_0002"

def upgrade():
    op.add_column("order_saga", sa.Column("tenant", sa.String(50)))

def downgrade():
    op.drop_column("order_saga", "tenant")
"""


class Project:
    """A user's Alembic project in a folder of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.versions = folder / "versions"
        self.versions.mkdir()
        (folder / "models.py").write_text(MODELS)
        (folder / "env.py").write_text(ENV)
        template = ROOT / "alembic" / "script.py.mako"
        (folder / "script.py.mako").write_text(template.read_text())
        self.printed = io.StringIO()
        self.config = Config(stdout=self.printed, output_buffer=self.printed)
        self.say(script_location=str(folder), models=str(folder / "models.py"), url=url, path_separator="newline")

    def say(self, **options: str) -> None:
        for name, value in options.items():
            self.config.set_main_option(name, value)

    def write(self, revision: str) -> None:
        (self.versions / "mine_1.py").write_text(revision)

    def generate(self) -> Path:
        """Generate a revision from the models, and return its file."""
        made: Any = command.revision(self.config, message="generated", autogenerate=True)
        return Path(made.path)

    def sql(self, way: Any, target: str) -> str:
        self.printed.seek(0)
        self.printed.truncate()
        way(self.config, target, sql=True)
        return self.printed.getvalue()

    def run_script(self, script: str) -> None:
        async def connected() -> None:
            engine = create_async_engine(self.url)
            async with engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                await (driver.executescript(script) if engine.dialect.name == "sqlite" else driver.execute(script))
            await engine.dispose()

        asyncio.run(connected())


COMPANIONS = ("history", "inbox", "route")
SAGA_TABLES = {"order_saga", *(f"order_saga_{name}" for name in COMPANIONS)}


def tables(url: str) -> set[str]:
    """The tables of a database, but for Alembic's own."""

    async def connected() -> set[str]:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
        await engine.dispose()
        return set(names) - {"alembic_version"}

    return asyncio.run(connected())


@pytest.fixture
def project(tmp_path: Path, database_url: str) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder, database_url)


# --- a call in a revision of the user's own --------------------------------------------------------------------------


def test_a_call_in_an_own_revision_leaves_nothing_to_generate(project: Project) -> None:
    """`alembic check` is content, and a generated revision is empty, twice in a row."""
    project.write(WAY_A)
    command.upgrade(project.config, "head")

    command.check(project.config)
    for _ in range(2):
        assert "op." not in project.generate().read_text()
        command.upgrade(project.config, "head")

    command.downgrade(project.config, "base")
    assert tables(project.url) == set()


def test_the_offline_sql_of_a_call_makes_the_same_tables(project: Project) -> None:
    """A database that was upgraded with the output of ``--sql`` has nothing left to generate, and goes down again."""
    project.write(WAY_A)

    project.run_script(project.sql(command.upgrade, "head"))
    command.check(project.config)
    project.run_script(project.sql(command.downgrade, "mine_1:base"))

    assert tables(project.url) == set()


# --- revisions that Alembic generates --------------------------------------------------------------------------------


def test_a_generated_revision_runs_and_imports_nothing_of_this_library(project: Project) -> None:
    """With `render_item` the tables are written in SQLAlchemy's own types, and nothing is left to generate."""
    project.say(render="on")

    generated = project.generate().read_text()

    assert "saga_orchestrator" not in generated
    assert (generated.count("postgresql.JSONB()"), generated.count("postgresql.JSON()")) == (1, 5)
    command.upgrade(project.config, "head")
    assert tables(project.url) == SAGA_TABLES
    command.check(project.config)
    command.downgrade(project.config, "base")
    assert tables(project.url) == set()


def test_without_the_hook_a_generated_revision_lacks_one_import(project: Project) -> None:
    """The types are written so that ``import saga_orchestrator`` is all that is missing."""
    file = project.generate()
    with pytest.raises(NameError, match="saga_orchestrator"):
        command.upgrade(project.config, "head")

    file.write_text(
        file.read_text().replace("import sqlalchemy as sa\n", "import sqlalchemy as sa\nimport saga_orchestrator\n")
    )
    command.upgrade(project.config, "head")

    command.check(project.config)


def test_a_generated_revision_leaves_room_for_the_next_version_of_a_row(project: Project) -> None:
    """Where SQLAlchemy knows the option (2.1), it is generated; the checks and the partial indexes are, everywhere."""
    project.say(render="on")

    generated = project.generate().read_text()

    knows = "with" in sa.Table("t", sa.MetaData()).dialect_options["postgresql"]
    assert ("fillfactor" in generated) is knows
    assert generated.count("CheckConstraint") == 2
    assert generated.count("sqlite_where") == 14


# --- the branch ------------------------------------------------------------------------------------------------------


def with_branch(project: Project) -> None:
    project.say(version_locations=f"{project.versions}\nsaga_orchestrator:migrations/versions")


def test_the_branch_goes_up_and_down_beside_the_users_own(project: Project) -> None:
    """Own revisions depend on the branch, and each can be moved by its label."""
    with_branch(project)
    project.say(saga_table="order_saga")
    project.write(OWN)

    command.upgrade(project.config, "heads")
    command.check(project.config)
    generated: Any = command.revision(project.config, message="next", autogenerate=True, head="mine@head")
    assert Path(generated.path).parent == project.versions
    assert "op." not in Path(generated.path).read_text()
    command.downgrade(project.config, "mine@base")
    assert tables(project.url) == SAGA_TABLES
    command.downgrade(project.config, "saga@base")

    assert tables(project.url) == set()


def test_the_branch_takes_several_tables_from_env_py(project: Project) -> None:
    """What `context.configure` says goes before the file; names are separated by commas."""
    with_branch(project)
    project.say(saga_table="not_this")
    project.config.attributes["options"] = {"saga_table": "order_saga, refund_saga"}

    command.upgrade(project.config, "saga@head")

    assert tables(project.url) == SAGA_TABLES | {"refund_saga", *(f"refund_saga_{name}" for name in COMPANIONS)}


def test_the_branch_has_offline_sql(project: Project) -> None:
    """``--sql`` needs no database and gives the same tables."""
    with_branch(project)
    project.say(saga_table="order_saga")

    project.run_script(project.sql(command.upgrade, "saga@head"))

    assert tables(project.url) == SAGA_TABLES


def test_the_branch_asks_for_the_name_of_the_table(project: Project) -> None:
    """Without a name nothing is created, and the error says where to put it."""
    with_branch(project)

    with pytest.raises(MigrationError, match="saga_table = order_saga"):
        command.upgrade(project.config, "saga@head")
    assert tables(project.url) == set()


# --- this repository's own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said_by", ["variable", "argument"])
def test_the_migrations_of_this_repository_go_up_and_down(
    said_by: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is taken from $DATABASE_URL or from -x, and the example model leaves nothing to generate."""
    config = Config(ROOT / "alembic.ini", stdout=io.StringIO())
    if said_by == "variable":
        monkeypatch.setenv("DATABASE_URL", database_url)
    else:
        config.cmd_opts = argparse.Namespace(x=[f"url={database_url}"])

    command.upgrade(config, "head")
    assert tables(database_url) == SAGA_TABLES
    command.check(config)
    command.downgrade(config, "base")
    assert tables(database_url) == set()


def test_the_folder_of_the_migrations_is_no_package() -> None:
    """With an ``__init__.py`` it would be imported in place of Alembic."""
    assert (ROOT / "alembic" / "env.py").exists()
    assert not (ROOT / "alembic" / "__init__.py").exists()
