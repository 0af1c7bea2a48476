"""The promises of the example feature."""
