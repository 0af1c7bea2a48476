"""A planner that moves the mechanical part of a notebook into the service, and asks about the rest."""
