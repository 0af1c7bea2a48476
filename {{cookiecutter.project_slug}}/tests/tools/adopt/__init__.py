"""The tests of tools/adopt, which read notebooks and run none of their code."""
