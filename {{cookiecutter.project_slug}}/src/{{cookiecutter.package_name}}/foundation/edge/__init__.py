"""WSGI layers between the server and Flask. They import neither Flask nor SQLAlchemy."""

from .context import at_close

__all__ = ["at_close"]
