"""What the controller keeps on disk: records of requests and their ends (SQLite), and large contents (files)."""
