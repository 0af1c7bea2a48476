"""A planner that moves the mechanical part of a notebook into the service, and leaves the rest as questions."""
