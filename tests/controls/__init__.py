"""The provocations of the proofs against code from tutorials, in which the failures do happen."""
