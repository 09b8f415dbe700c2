"""What learns: numpy and numba models without Kafka, Faust, clock or global random state."""
