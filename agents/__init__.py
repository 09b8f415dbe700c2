"""What moves: Faust agents, one a file, that turn records into learned state."""
