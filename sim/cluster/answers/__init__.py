"""Answers to info requests: name to text."""
