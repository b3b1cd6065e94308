"""The PostgreSQL provider: a database with roles of its own in a server named in the catalog."""
