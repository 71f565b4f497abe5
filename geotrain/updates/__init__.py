"""Tensors on their way from a site to the coordinator: codec, chunks, checks. Knows no network and no store."""
