"""The tests of tools/doctor, which read code and start nothing."""
