"""Using persona vectors: steering, monitoring, prevention, screening and comparing models, with features explaining why."""
