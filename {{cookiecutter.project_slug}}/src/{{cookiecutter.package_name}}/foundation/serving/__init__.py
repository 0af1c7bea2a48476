"""Server startup, checks and shutdown. No feature imports this room, so nothing is re-exported.

An import here would also load code into uWSGI's master, and a chain reload would go on serving it.
"""
