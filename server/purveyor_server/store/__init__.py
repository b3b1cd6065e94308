"""Durable state: the contract as commands, and its backends."""
