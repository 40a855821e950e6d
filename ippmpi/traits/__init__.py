"""The configuration of ipyparallel (``--Class.trait=value``, ``ipcluster_config.py``), read as settings of ours."""
