"""The store over SQLAlchemy.

Only `open_store` imports it, so that `import blazen_trio` needs no database library.
"""
