"""Proofs on real servers: each module starts them as they ship, and provokes one failure from outside."""
