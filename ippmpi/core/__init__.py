"""The controller's brain: pure. No ZeroMQ, no I/O, no thread, no clock."""
