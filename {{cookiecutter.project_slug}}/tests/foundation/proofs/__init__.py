"""Proofs on real servers: each module starts them as shipped, and provokes one failure from outside."""
