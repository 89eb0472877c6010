"""Measurements of Secateur itself; `docs/benchmarks.md` holds their figures."""
