"""The foundation of the service. The template owns it: `cruft update` changes these files.

Features import from its packages (`database`, `http`, `edge`, `observability`) and never change them. It
imports nothing from the project: `app.py` passes in the settings and the features. Import contracts check
both rules.
"""
