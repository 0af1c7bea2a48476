"""A small service for the foundation's tests, with its own feature and table.

It replaces the project's own `app.py`, `settings.py` and features in every copy of the project that a proof
serves, so no test of the foundation depends on the owner's code.
"""
