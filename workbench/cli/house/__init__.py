"""Commands that keep house: the machine, the catalogue, the cache, the settings, the run folders."""
