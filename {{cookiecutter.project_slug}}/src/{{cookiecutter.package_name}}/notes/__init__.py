"""Notes: the example feature. Copy the folder for your own feature, then delete it."""
