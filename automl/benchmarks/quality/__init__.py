"""`secateur bench quality`: every agent against every other at equal cost, over nets, targets and seeds."""
