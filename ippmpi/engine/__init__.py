"""The process that is an MPI rank: it runs the user's code."""
