"""The only place that touches ZeroMQ."""
