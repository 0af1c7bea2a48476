"""The tests of the service; foundation/ has those of the template's code."""
