"""The tables of a saga, from one version of this library to the next.

A version of the tables has a number, and one module here (`v0001`, …) that leads up to it and back. Such a module is
never changed once it has been released: it spells its columns out, and does not look at `SagaStateMixin`, which moves
on. A test holds that the sum of all the versions is what the mixin maps. Your own columns are not part of it: they are
migrated by you.

There are three ways to run them; use one of them for a database:

- `upgrade` and `downgrade`, called by a revision in your own Alembic history. Recommended: the tables change when you
  say so, in one order with your own.
- The folder `versions`, as one of Alembic's `version_locations`: a branch of its own, labelled ``saga``.
- `SagaTables`, which is ``saga db``: for an application without Alembic revisions of its own.

Alembic is imported by none of it until it is needed, and not at all by the rest of the library.
"""

from __future__ import annotations

from .autogenerate import render_item
from .direction import HEAD, MigrationError, downgrade, upgrade
from .tables import SagaTables, sql

__all__ = ["HEAD", "MigrationError", "SagaTables", "downgrade", "render_item", "sql", "upgrade"]
