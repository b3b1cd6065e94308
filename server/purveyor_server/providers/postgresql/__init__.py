"""The PostgreSQL provider: a database with roles of its own in a server named in the catalog."""

from __future__ import annotations

from purveyor_server.providers.postgresql.provider import PostgresProvider

__all__ = ["PostgresProvider"]
