"""Searches on several processes and machines: connections, jobs, sweeps and metrics; all of it on Ray."""
