"""A reader of code that finds what works in a notebook and fails in a service. It runs none of that code."""
