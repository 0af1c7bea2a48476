"""The proofs' provocations against code from tutorials, where the failures happen."""
