"""Notes: the example feature. Copy the folder for your own, then delete it."""
