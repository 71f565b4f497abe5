"""Commands on records, one, many or all of a set: checks in a server's order, then the change."""
