"""The coordinator: runs jobs round by round, turns what the sites learned into the next model state, publishes it."""
