"""Server startup, checks and shutdown. No feature imports this package, so nothing is re-exported.

An import here would also load code into uWSGI's master, and a chain reload would keep serving it.
"""
