"""The site agent: one region's daemon. Reads the view, joins it with local datasets, trains, reports updates."""
