"""What is kept: tables, checkpoints, the replica of all items and its index."""
