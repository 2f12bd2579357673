"""The same versions as an Alembic branch of its own. For `version_locations`; nothing in the library imports it."""
