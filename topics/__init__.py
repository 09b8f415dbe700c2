"""What travels: records, codecs, keys, partitions, topic settings and dead letters."""
