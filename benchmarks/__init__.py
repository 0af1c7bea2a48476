"""Measurements of the generated service. `make bench` prints them as tables."""
