"""The controller process: ``net.router`` around ``core.hub``, the store and the spool."""
