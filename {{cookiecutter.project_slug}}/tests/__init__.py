"""The tests of the service, and in foundation/ those of the code that the template owns."""
