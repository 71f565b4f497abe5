"""A simulated multi-site Aerospike cluster that speaks the real wire protocol: `python -m sim.cluster`."""
