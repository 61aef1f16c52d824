"""Shipped contracts and fakes; only tests import this."""
