"""What proofs add to the service to provoke a failure: `add_to(app)` of each module does it."""
