"""What answers: HTTP views over the learned state."""
