"""Start reading at `app.py`: it is the one place where the parts of the service meet."""
