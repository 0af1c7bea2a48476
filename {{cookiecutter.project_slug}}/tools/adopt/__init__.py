"""A planner that moves the mechanical part of a notebook into the service, with questions about the rest."""
