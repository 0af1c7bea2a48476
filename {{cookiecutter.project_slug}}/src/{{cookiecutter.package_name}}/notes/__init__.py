"""Notes: the example feature. Copy this folder to start your own feature, then delete `notes`."""
