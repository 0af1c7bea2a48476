"""The same provocations against the code as tutorials write it: here the failures do happen."""
