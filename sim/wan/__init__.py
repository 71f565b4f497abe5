"""A model of the wide area between sites, and a TCP proxy that behaves like it: `python -m sim.wan`."""
