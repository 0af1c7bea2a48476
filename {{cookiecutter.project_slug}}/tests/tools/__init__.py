"""The tests of tools/."""
