"""Alembic's scripts: how a database of each older version becomes one of this."""
