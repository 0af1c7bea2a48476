"""A checker for code that works in a notebook but fails in a service. It does not run the code."""
