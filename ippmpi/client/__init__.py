"""The side with a person: Client, views, results, magics."""
