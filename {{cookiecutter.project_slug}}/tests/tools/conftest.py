"""Configuration of the tests of tools/."""

from ..foundation import databases

collect_ignore = [] if "postgresql" in databases.names() else ["doctor/test_proofs.py"]
