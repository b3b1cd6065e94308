"""Durable, stepwise, reversible execution of operations."""
