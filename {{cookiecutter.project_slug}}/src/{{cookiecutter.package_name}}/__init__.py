"""The service. Start reading at `app.py`; everything below `foundation` belongs to the template."""
