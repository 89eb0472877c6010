"""Agents: the DDPG that Secateur learns with, and every agent that it has to beat."""
