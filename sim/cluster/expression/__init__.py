"""Expressions, compiled from their packed form. Know records and values, no cluster."""
