"""Nodes, racks and what becomes of partitions when sites are lost: rules as pure modules, and the faults."""
