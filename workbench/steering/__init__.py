"""What persona vectors are for: steering, monitoring, prevention, screening and comparing models, with features explaining why."""
