"""What travels between processes, and how it becomes bytes. No ZeroMQ and no I/O here."""
