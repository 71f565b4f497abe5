"""Joins a site's rows with its other datasets and the view, as of each row's time, on the site's Ray cluster."""
