"""Aerospike's wire protocol: bytes to values and back. Pure: no sockets, no clock, and no other part of geotrain."""
