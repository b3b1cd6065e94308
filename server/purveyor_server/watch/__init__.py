"""Delivery of stored changes to streams."""
