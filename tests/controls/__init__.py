"""The same provocations against code as tutorials have it: here the failures do happen."""
