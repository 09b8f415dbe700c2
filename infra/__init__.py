"""What runs it: settings, logging and the embedded Kafka broker."""
