"""Commands of development that add and remove a feature. They are not part of the service."""
