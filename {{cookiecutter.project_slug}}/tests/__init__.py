"""Each module here holds the promises of the one of the same name in src/; servers/ starts real ones."""
