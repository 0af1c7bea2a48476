"""A small service for the tests of the foundation, with its own feature and table.

It takes the place of the project's own `app.py`, `settings.py` and features in every copy of the project that
a proof serves, so that no test of the foundation depends on the owner's code.
"""
