"""Data, weights and runs that lie elsewhere: object stores, servers, other machines' disks, by URL."""
