"""Additions to the service that provoke a failure: each module has a function `add_to(app)`."""
