"""Loops that bring the world and the records together: one class per loop, each doing one round at a time."""
