"""The foundation of the service. The template owns it: `cruft update` changes these files.

Features import from its rooms (`database`, `http`, `edge`, `observability`) and never change it. It imports
nothing of the project: `app.py` passes it the settings and the features. Import contracts check both.
"""
